"""The command line: its commands, and how an error looks."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from tokenred._version import __version__
from tokenred.cli.console import claims, exit_code, terminable
from tokenred.cli.importing import OPTION, import_all
from tokenred.core.errors import TokenredError

__all__ = ["app", "main"]

# Where a command is, and what `tokenred --help` says of it without importing it.
_COMMANDS = {
    "ablate": ("ablating:ablate_command", "Run a grid of strategies, each cell once."),
    "agreement": ("measuring:agreement_command", "Compare which patches methods keep."),
    "bench": ("measuring:bench_command", "Measure speed against the dense model, over settings."),
    "compare": ("measuring:compare_command", "Compare strategies: cost, speed and accuracy."),
    "export": ("exporting:export_command", "Write a model with its strategy as one file."),
    "finetune": ("finetuning:finetune_command", "Fine-tune a model with a strategy."),
    "graph": ("showing:graph_command", "Draw the token graph of a photograph."),
    "list": ("listing:list_command", "List strategies, parts and plug-ins."),
    "oversmoothing": ("measuring:oversmoothing_command", "Measure how alike tokens become."),
    "plot": ("plotting:plot_app", "Draw a figure from the CSV of a comparison or a study."),
    "report": ("reporting:report_command", "Report results as one HTML page."),
    "reproduce": ("reporting:reproduce_command", "Run the GTP paper's experiments."),
    "show": ("showing:show_command", "Show what strategies leave of a photograph."),
}


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
for _name, (_place, _help) in _COMMANDS.items():
    app.command(f"tokenred.cli.{_place}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: by default those of the program.
    """
    words = sys.argv[1:] if arguments is None else arguments
    for name in _COMMANDS.keys() & set(words):
        # The command that is meant has more to say than its line in the list.
        del app[name]
        app.command(f"tokenred.cli.{_COMMANDS[name][0]}", name=name)
    try:
        sys.exit(app.meta(words) or 0)
    except CycloptsError as error:
        sys.exit(_fail(str(error), 2))


@app.meta.default
def _root(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    imports: Annotated[tuple[str, ...], Parameter(OPTION, show_default=False)] = (),
    traceback: Annotated[bool, Parameter(env_var="TOKENRED_TRACEBACK", show_default=False)] = False,
) -> int:
    """Run a command, with one line for an error or a signal in place of a traceback.

    Args:
        imports: your own parts: a .py file or a module that registers them; repeat it.
        traceback: show where an error came from.
    """
    # Bars belong to terminals; tqdm would also draw them into a dumb one.
    if os.environ.get("TERM") == "dumb":
        os.environ.setdefault("TQDM_DISABLE", "1")
    command: Any = None
    try:
        import_all(imports)
        command, bound, _ = app.parse_args(words)
        with claims(), terminable():
            return command(*bound.args, **bound.kwargs) or 0
    except KeyboardInterrupt as stop:
        again = (*words, *(f"{OPTION}={each}" for each in imports))
        return _fail(_how_to_go_on(command, again, str(stop)), exit_code(stop))
    except TokenredError as error:
        if traceback:
            raise
        return _fail(str(error), 2)


def _fail(message: str, code: int) -> int:
    print(f"tokenred: {' '.join(message.split())}", file=sys.stderr)
    return code


def _how_to_go_on(command: Any, words: Sequence[str], told: str) -> str:
    """A line for whoever stopped a command: the library's own, or the command that resumes."""
    if command is None or "resume" not in inspect.signature(command).parameters:
        return told or "stopped; nothing was written."
    again = [word for word in words if word not in ("--resume", "--overwrite")]
    line = shlex.join(["tokenred", *again, "--resume"])
    return f"stopped; what is finished is kept. Go on with: {line}"
