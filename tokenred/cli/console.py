"""What all commands share: printing, claiming outputs, and being stopped."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from tokenred.analysis.result import line_width
from tokenred.core.errors import ConfigError
from tokenred.core.files import PICTURES, check_output, prepare_folder
from tokenred.core.lock import output_lock

claims = ExitStack()
"""Locks of the outputs that the running command has claimed; whoever runs it closes them."""


def make_console() -> Console:
    """A console on standard output; wide if that is not a terminal and no width is set.

    Square brackets are plain text, because labels and paths contain them. What the terminal cannot
    show becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=line_width(), highlight=False, soft_wrap=False, markup=False, emoji=False)


def say(*parts: object, written: Iterable[Path] = ()) -> None:
    """Print tables and lines, and name the files that were written.

    Lines are wrapped. A text that has several, such as a LaTeX table, stays as it is.
    """
    console = make_console()
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str) and "\n" in part)
    if files := ", ".join(map(str, written)):
        console.print(f"Written: {files}", soft_wrap=True)


def claim(output: Path) -> Path:
    """Hold the lock of an output folder or file until the command ends.

    Raises:
        OutputBusyError: if another process is writing there.
    """
    claims.enter_context(output_lock(output))
    return output


def claim_pictures(outputs: tuple[Path, ...], overwrite: bool) -> list[Path]:
    """The same for the files of one figure, whose suffixes say their formats."""
    return [claim(check_output(path, PICTURES, overwrite=overwrite)) for path in outputs]


def claim_folder(
    folder: Path, *names: str, overwrite: bool, resume: bool | None = None
) -> tuple[Path, ...]:
    """The paths of a command's files in a folder that is locked until the command ends.

    A folder made for a command that then writes nothing is removed.

    Args:
        folder, names: of the files.
        overwrite: whether they may be replaced.
        resume: whether they may be continued; None if the command cannot.

    Raises:
        ConfigError: for the name of a file.
        OutputExistsError: if a file exists and may not be replaced.
        OutputBusyError: if another process is writing there.
        DataError: if the folder cannot be created or written to.
    """
    if folder.suffix.lower() in (*PICTURES, *(Path(name).suffix for name in names)):
        raise ConfigError(
            f"expected --output as a folder for {' and '.join(names)}, got the file name {folder}."
        )
    replace, resumable = overwrite or bool(resume), resume is not None
    paths = make_folder(folder, names, overwrite=replace, resumable=resumable)
    claim(folder)
    return paths


def make_folder(
    folder: Path, names: Sequence[str] = (), *, overwrite: bool = True, resumable: bool = False
) -> tuple[Path, ...]:
    """As `prepare_folder`; what it makes and the command leaves empty is removed in the end."""
    place = folder.expanduser()
    new = [each for each in (place, *place.parents) if not each.exists()]
    paths = prepare_folder(place, tuple(names), overwrite=overwrite, resumable=resumable)
    for each in reversed(new):  # called in reverse
        claims.callback(_remove_empty, each)
    return paths


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_resume(resume: bool, overwrite: bool) -> None:
    """Refuse ``--resume`` with ``--overwrite``.

    Raises:
        ConfigError: for both.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues an earlier run, --overwrite replaces it; choose one.")


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def stoppable(tell: Callable[[], object]) -> Iterator[None]:
    """Within the block SIGTERM ends the program as Ctrl-C does: outputs are closed first.

    Except during an import: packages swallow the exception there, or are left half-imported. The
    program then ends at once, after it has called ``tell``; nothing is being written.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                tell()
                sys.stderr.flush()
                os._exit(128 + number)
            frame = frame.f_back
        raise _TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(stop: KeyboardInterrupt) -> int:
    """As in a shell: 128 plus the number of the signal."""
    terminated = isinstance(stop.__cause__ or stop, _TerminatedError)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
