"""``tokenred export``: a reduced model as one file for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenred.cli.console import make_console
from tokenred.cli.model_options import Weights
from tokenred.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from tokenred.export import ExportReport

__all__ = ["export_command"]

_SUFFIXES = {".onnx": "onnx", ".pt2": "torch"}
_BATCHES = ("any", "fixed")


def export_command(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file: .onnx, or .pt2 for torch.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="'digits' (embedded), a timm name, or a .safetensors file; one that tokenred.save "
            "wrote brings its strategy along."
        ),
    ] = "digits",
    checkpoint: Weights = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained, to try the export.")
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy", "-s",
            help="NAME[:KEY=VALUE,…][@SHARE] or a .toml file, as for compare: gtp:P=4,alpha=0.2; "
            "tome@0.65 costs 0.65 of the dense model's GMACs.",
            show_default="the file's own, or the dense model",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="onnx, or torch (torch.export).", show_default="by the file's ending"),
    ] = None,
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="H W", help="Of the images.", show_default="the model's own"),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="Of ONNX, from 18 on.", show_default="PyTorch's choice")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(metavar="any|fixed", help="Any number of images, or one at a time.")
    ] = "any",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Run the file against the model.")
    ] = True,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference, as a share of the largest logit.")
    ] = 1e-4,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:  # fmt: skip
    """Write a model with its strategy as one file, checked against the model before it is there.

    ONNX runs in onnxruntime, TensorRT and others, an archive of torch.export in PyTorch; neither
    needs tokenred.
    """
    kind = _format(format, output)
    if batch_size not in _BATCHES:
        raise UnknownNameError.of("batch size", batch_size, _BATCHES)
    if opset is not None and kind != "onnx":
        raise ConfigError("--opset is for ONNX; leave it out, or use --format onnx.")
    # Heavy libraries only now, so that --help is quick.
    from tokenred.export import to_onnx, to_torch_export
    from tokenred.export.verified import check_place

    # Before a model is loaded or fetched.
    ending = next(suffix for suffix, name in _SUFFIXES.items() if name == kind)
    check_place(output, ending, overwrite=overwrite)
    chosen = _open(model, checkpoint, random_weights, strategy, image_size)
    options: dict[str, Any] = {
        "image_size": image_size,
        "dynamic_batch": batch_size == "any",
        "check": check,
        "tolerance": tolerance,
        "overwrite": overwrite,
    }
    console = make_console()
    with console.status("Exporting; a large model takes a minute or two …"):
        if kind == "onnx":
            report = to_onnx(chosen, output, opset=opset, **options)
        else:
            report = to_torch_export(chosen, output, **options)
    console.print(_table(report))


def _format(name: str | None, output: Path) -> str:
    known = sorted(_SUFFIXES.values())
    if name is not None:
        if name.casefold() not in known:
            raise UnknownNameError.of("format", name, known)
        return name.casefold()
    if output.suffix not in _SUFFIXES:
        raise ConfigError(
            f"expected --output to end in {' or '.join(_SUFFIXES)}, got {output.name!r}."
        )
    return _SUFFIXES[output.suffix]


def _open(
    name: str,
    checkpoint: Path | None,
    random_weights: bool,
    strategy: str | None,
    image_size: tuple[int, int] | None,
) -> nn.Module:
    """The model, resized where it has to be, under its strategy if it has one."""
    from tokenred.analysis.measure.candidates import resize
    from tokenred.models import load_model
    from tokenred.reduced.model import ReducedViT
    from tokenred.reduced.saving import load
    from tokenred.reduced.wrap import wrap
    from tokenred.strategies.specs import parse_spec

    spec = None if strategy is None else parse_spec(strategy)
    if _is_saved(name):
        if checkpoint is not None or random_weights:
            raise ConfigError(f"{name} holds weights of its own; leave the others out.")
        reduced: ReducedViT = load(name)
        base, own = reduced.base, reduced.strategy
    else:
        base = load_model(name, checkpoint=checkpoint, pretrained=False if random_weights else None)
        own = None
    if image_size is not None:
        resize(base, image_size)
    if spec is not None:
        return wrap(base, spec)
    if own is None:
        return base
    return reduced if image_size is None else reduced.with_strategy(own)


def _is_saved(name: str) -> bool:
    """Whether a name is a file that tokenred.save wrote."""
    from tokenred.models.checkpoint_file import read_checkpoint

    if not name.endswith(".safetensors") or not Path(name).is_file():
        return False
    return read_checkpoint(name)[1].get("format", "").startswith("tokenred/")


def _table(report: ExportReport) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    form = "torch.export" if report.opset is None else f"ONNX, opset {report.opset}"
    table.add_row("file", str(report.path))
    table.add_row("format", form)
    table.add_row("size", f"{report.bytes / 1e6:.1f} MB")
    for kind, ports in (("input", report.inputs), ("output", report.outputs)):
        for name, shape in ports.items():
            table.add_row(kind, f"{name} ({', '.join(map(str, shape))})")
    table.add_row("check", _checked(report))
    return table


def _checked(report: ExportReport) -> str:
    if report.difference is None:
        return "left out"
    sizes = " and ".join(map(str, report.batches))
    drawn = f", at draw {report.draws}" if report.draws > 1 else ""
    return f"differs by {report.difference:.1e} of the largest logit (batch of {sizes}{drawn})"
