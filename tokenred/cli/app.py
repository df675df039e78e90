"""The command line: its commands, and how an error looks."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tokenred._version import __version__
from tokenred.cli.ablating import ablate_command
from tokenred.cli.agreeing import agreement_command
from tokenred.cli.benching import bench_command
from tokenred.cli.comparing import compare_command
from tokenred.cli.console import claims
from tokenred.cli.exporting import export_command
from tokenred.cli.finetuning import finetune_command
from tokenred.cli.graphing import graph_command
from tokenred.cli.importing import OPTION, import_all, imports_first
from tokenred.cli.listing import list_command
from tokenred.cli.plotting import plot_app
from tokenred.cli.reporting import report_command
from tokenred.cli.reproducing import reproduce_command
from tokenred.cli.showing import show_command
from tokenred.cli.smoothing import oversmoothing_command
from tokenred.cli.stopping import exit_code, how_to_go_on, terminable
from tokenred.core.errors import TokenredError

__all__ = ["app"]

_ARGUMENTS = "tokenred.arguments"


class _Group(TyperGroup):
    """One line for an error of the library or a signal, in place of a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, imports_first(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            with claims(), terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            told = str(stop) or how_to_go_on(command, ctx.meta[_ARGUMENTS])
            typer.echo(f"tokenred: {told}", err=True)
            raise typer.Exit(exit_code(stop)) from None
        except TokenredError as error:
            if ctx.params.get("traceback"):
                raise
            typer.echo(f"tokenred: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=_Group,
    help="Token reduction for vision transformers: compare strategies, list the parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich would take [@SHARE] for a style.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokenred {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback", envvar="TOKENRED_TRACEBACK", help="Show where an error came from."
        ),
    ] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            OPTION,
            metavar="FILE|MODULE",
            help="Your own parts: a .py file or a module that registers them; repeat it. It may "
            "stand after the command, too.",
        ),
    ] = None,
) -> None:
    # Bars belong to terminals; tqdm would also draw them into a dumb one.
    if os.environ.get("TERM") == "dumb":
        os.environ.setdefault("TQDM_DISABLE", "1")
    import_all(imports or ())


app.command("ablate")(ablate_command)
app.command("bench")(bench_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("finetune")(finetune_command)
app.command("list")(list_command)
app.command("report")(report_command)
app.command("reproduce")(reproduce_command)
app.command("show")(show_command)
app.add_typer(plot_app, name="plot")
app.command("oversmoothing")(oversmoothing_command)
app.command("graph")(graph_command)
app.command("agreement")(agreement_command)
