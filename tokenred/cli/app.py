"""The command line: its commands, and how it reports errors."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any

from cyclopts import (
    App,
    CycloptsError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from tokenred._version import __version__
from tokenred.cli.absent import refuse_devices
from tokenred.cli.console import claims, exit_code, stoppable
from tokenred.cli.importing import OPTION, import_all
from tokenred.cli.refusing import axes_of, refuse_unknown
from tokenred.core import errors
from tokenred.core.errors import IF_OWN, TokenredError
from tokenred.core.provenance import own_line
from tokenred.core.registry import KINDS
from tokenred.data.places import DATA_OF

# Where each command is. None imports PyTorch before it has to: what can be refused is refused at
# once.
_COMMANDS = {
    "ablate": "ablating:ablate_command",
    "agreement": "following:agreement_command",
    "bench": "measuring:bench_command",
    "compare": "measuring:compare_command",
    "export": "exporting:export_command",
    "finetune": "finetuning:finetune_command",
    "graph": "showing:graph_command",
    "list": "listing:list_command",
    "oversmoothing": "following:oversmoothing_command",
    "plot": "plotting:plot_app",
    "report": "reporting:report_command",
    "reproduce": "reporting:reproduce_command",
    "show": "showing:show_command",
}
# What other commands call an option.
_ELSEWHERE = {"--base": "--strategy", "-s": "--base", "--strategy": "--base"}
# Arguments as the library's messages write them, and what has another name as an option.
_ARGUMENT = re.compile(r"(?<![^\s(])([a-z_]+)=(True|False|[A-Z]+|\d+|'\w+'|)(?![^\s,;.)])")
_OPTIONS = {"pretrained=False": "--random-weights", "to_torch_export": "--format torch"}


app = App(
    name="tokenred",
    help="Token reduction for vision transformers: compare strategies, list the parts.",
    version=f"tokenred {__version__}",
    help_format="markdown",
    default_parameter=Parameter(negative=()),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
for _name, _place in _COMMANDS.items():
    app.command(f"tokenred.cli.{_place}", name=_name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: by default the program's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = _show_warning
    for name in () if _COMMANDS.keys() & set(words) else _COMMANDS:
        app[name]  # imported, for its line in the help
    try:
        sys.exit(app.meta(words) or 0)
    except CycloptsError as error:
        sys.exit(_fail(_told(error), 2))


def _told(error: CycloptsError) -> str:
    """What the parser says; and how words are written that may be strategies or files."""
    if isinstance(error, UnknownOptionError):
        word = error.token.keyword or error.token.value
        other = _ELSEWHERE.get(word.partition("=")[0], "")
        if any(other in known.names for known in error.argument_collection):
            return f"Unknown option: {word}. Did you mean {other}?"
    told = error.exception_message if isinstance(error, ValidationError) else str(error)
    rest = error.unused_tokens if isinstance(error, UnusedCliTokensError) else ()
    if not rest or any(word.startswith("-") for word in rest):
        return told
    models = dict.fromkeys(DATA_OF, "--model")
    written = (f"{OPTION if w.endswith('.py') else models.get(w, '-s')} {w}" for w in rest)
    return f"{told} A model, strategy or file of parts needs its option: {' '.join(written)}."


@app.meta.default
def _root(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    imports: Annotated[tuple[str, ...], Parameter(OPTION, show_default=False)] = (),
    traceback: Annotated[bool, Parameter(env_var="TOKENRED_TRACEBACK", show_default=False)] = False,
) -> int:
    """Run a command; an error or a signal prints one line instead of a traceback.

    Args:
        imports: a .py file or module that registers your own parts; repeatable.
        traceback: show the traceback of an error.
    """
    command: Any = None
    again = (*words, *(f"{OPTION}={each}" for each in imports))
    try:
        command, bound, _ = app.parse_args(words)
        import_all(imports)
        given = bound.arguments | bound.arguments.get("options", {})
        if not any(registry.extended for registry in KINDS.values()):
            refuse_unknown(given)
        with claims, stoppable(lambda: _fail(_how_to_go_on(command, again), 0)):
            skipped = given.get("invalid") == "skip"
            refuse_devices(given, () if skipped else axes_of(given).get("device", ()))
            return command(*bound.args, **bound.kwargs) or 0
    except KeyboardInterrupt as stop:
        return _fail(_how_to_go_on(command, again, stop), exit_code(stop))
    except TokenredError as error:
        if traceback:
            raise
        own = f" If it is your own, name the file that registers it: {OPTION} FILE.py."
        told = _in_options(str(error).replace(IF_OWN, "" if imports else own), command)
        return _fail(told, 2)
    except Exception as error:
        if traceback or not imports or not (line := own_line(error)):
            raise
        told = f"{type(error).__name__} in {line}: {str(error).rstrip('.')}"
        return _fail(f"{told}. Test parts by tokenred.testing; --traceback shows the calls.", 1)


def _in_options(message: str, command: Any) -> str:
    """The library's message, with options of the command in place of arguments in Python."""
    known = set[str]()
    for name, option in inspect.signature(command).parameters.items() if command else ():
        group = is_dataclass(option.annotation)
        known |= {field.name for field in fields(option.annotation)} if group else {name}
    for argument, written in _OPTIONS.items() if command else ():
        message = message.replace(argument, written)

    def spoken(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2].strip("'")
        switch = {"True": f"--{name}", "False": f"--no-{name}"}
        written = switch.get(value, f"--{name} {value}".rstrip())
        return written if found[1] in known else found[0]

    return _ARGUMENT.sub(spoken, message)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    """Show one of tokenred's own warnings without its place in the code."""
    if category.__module__ == errors.__name__:
        _fail(f"warning: {message}", 0)
    else:
        print(warnings.formatwarning(message, category, filename, lineno), end="", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    print(f"tokenred: {' '.join(message.split())}", file=sys.stderr)
    return code


def _how_to_go_on(command: Any, words: Sequence[str], stop: KeyboardInterrupt | None = None) -> str:
    """What to say when a command is stopped: what is done, and how to resume it."""
    known = inspect.signature(command).parameters if command else {}
    done = getattr(stop, "done", "")
    if "resume" not in known and "store" not in known:
        return "stopped; nothing was written."
    resume = ["--resume"] * ("resume" in known)
    dropped = ("--resume", "--overwrite") if resume else ()
    again = [word for word in words if word not in dropped]
    told = f"{done} done" if done else "finished results, if any, are kept"
    return f"stopped; {told}. Continue with: {shlex.join(['tokenred', *again, *resume])}"
