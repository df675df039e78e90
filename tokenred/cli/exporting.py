"""``tokenred export``: write a reduced model to one file for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tokenred.cli.console import claim, make_console, make_folder, say
from tokenred.cli.options import OUTPUT, ModelOptions, Overwrite, Strategy, options_of, read_size
from tokenred.core.errors import ConfigError, UnknownNameError
from tokenred.core.files import check_suffix

if TYPE_CHECKING:
    from torch import nn

    from tokenred.export import ExportReport

_ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
_BATCHES = ("any", "fixed")


@options_of("tokenred.export:to_onnx", leave_out="path dynamic_batch image_size")
def export_command(
    *,
    output: Annotated[Path, OUTPUT],
    model: ModelOptions = ModelOptions(),
    strategy: Strategy | None = None,
    format: str | None = None,
    batch_size: str = "any",
    image_size: str | None = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Export a reduced model to one file.

    The file is compared with the model before it is kept. ONNX runs in onnxruntime, TensorRT and
    others, a torch.export archive in PyTorch; neither needs tokenred. A file written by
    tokenred.save already contains its strategy.

    Args:
        output: the file: .onnx, or .pt2 for torch.
        format: onnx or torch (torch.export); by default, what the file's suffix says.
        batch_size: any for any number of images, or fixed for one at a time.
        image_size: a side or HEIGHTxWIDTH; by default the model's own.
    """
    kind = _format(format, output)
    if batch_size not in _BATCHES:
        raise UnknownNameError.of("batch size", batch_size, _BATCHES)
    if "opset" in options and kind != "onnx":
        raise ConfigError("--opset is for ONNX; leave it out, or use --format onnx.")
    side = None if image_size is None else read_size(image_size)
    size = (side, side) if isinstance(side, int) else side
    output = check_suffix(output, (_ENDINGS[kind],))
    claim(make_folder(output.parent, (output.name,), overwrite=overwrite)[0])
    model.refuse_unreachable()
    from tokenred.export import to_onnx, to_torch_export
    from tokenred.strategies.specs import parse_spec

    spec = None if strategy is None else parse_spec(strategy)
    write = {"onnx": to_onnx, "torch": to_torch_export}[kind]
    chosen = _open(model, spec, size)
    with make_console().status("Exporting; a large model takes a minute or two …"):
        report = write(
            chosen, output, image_size=size, dynamic_batch=batch_size == "any",
            overwrite=overwrite, **options,
        )  # fmt: skip
    say(*(f"{name:<8}{told}" for name, told in _told(report)))


def _format(name: str | None, output: Path) -> str:
    if name is not None:
        if name.casefold() not in _ENDINGS:
            raise UnknownNameError.of("format", name, _ENDINGS)
        return name.casefold()
    for kind, ending in _ENDINGS.items():
        if output.suffix == ending:
            return kind
    raise ConfigError(f"expected --output to end in .onnx or .pt2, got {output.name!r}.")


def _open(model: ModelOptions, chosen: Any, size: tuple[int, int] | None) -> nn.Module:
    """The model, resized if necessary, with its strategy if it has one."""
    from tokenred.analysis.measure.timing import resize
    from tokenred.reduced.saving import is_saved, load
    from tokenred.reduced.wrap import wrap

    if is_saved(model.name):
        if model != ModelOptions(model=model.model):
            raise ConfigError(
                f"{model.name} contains its own weights; leave out the options that choose others."
            )
        reduced = load(model.name)
        base, chosen = reduced.base, chosen or reduced.strategy
    else:
        base = model.load()
    if size is not None:
        resize(base, size)
    return base if chosen is None else wrap(base, chosen)


def _told(report: ExportReport) -> list[tuple[str, str]]:
    """What was written, and how well it agrees with the model."""
    checked = "left out"
    if report.difference is not None:
        sizes = " and ".join(map(str, report.batches))
        drawn = f", at draw {report.draws}" if report.draws > 1 else ""
        checked = (
            f"differs by {report.difference:.1e} of the largest logit (batch of {sizes}{drawn})"
        )
    return [
        ("file", str(report.path)),
        ("format", "torch.export" if report.opset is None else f"ONNX, opset {report.opset}"),
        ("size", f"{report.bytes / 1e6:.1f} MB"),
        *(
            (kind, f"{name} ({', '.join(map(str, shape))})")
            for kind, ports in (("input", report.inputs), ("output", report.outputs))
            for name, shape in ports.items()
        ),
        ("check", checked),
    ]
