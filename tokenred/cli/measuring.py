"""``tokenred agreement`` and ``tokenred oversmoothing``: what happens to tokens, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tokenred.analysis import agreement, oversmoothing
from tokenred.analysis.lineup import named_specs
from tokenred.analysis.plots.canvas import figure_bytes
from tokenred.backbones import adapt
from tokenred.cli.console import claim_folder, make_console, say_written
from tokenred.cli.options import DataOptions, ModelOptions, Strategies, options_of
from tokenred.core.errors import ConfigError
from tokenred.core.files import write_atomically

__all__ = ["agreement_command", "oversmoothing_command"]

_PANELS = ("cosine", "cosine_difference", "high_frequency", "effective_rank")


@options_of(agreement, leave_out="strategies name class_map", removed="--removed -P")
def agreement_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: DataOptions = DataOptions(),
    strategy: Strategies = ("gtp", "topk", "tome", "evit", "random"),
    statistic: Literal["iou", "survival", "scores"] = "iou",
    layer: int | None = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("tokenred-out/agreement"),
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Agreement: which patches methods keep, at the same counts in every block.

    Without options: the embedded digits model and images.

    Args:
        statistic: what to draw.
        layer: draw method against method in this block.
        output: folder for agreement.csv and agreement.png.
        overwrite: replace what is there from an earlier run.
    """

    def check(depth: int) -> None:
        if layer is not None and not 0 <= layer < depth:
            raise ConfigError(f"expected --layer from 0 to {depth - 1}, got {layer}.")

    _measure(agreement, model, data, strategy, output, overwrite, options, check,
             statistic=statistic, layer=layer)  # fmt: skip


@options_of(oversmoothing, leave_out="strategies name class_map gmacs_share")
def oversmoothing_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: DataOptions = DataOptions(),
    strategy: Strategies = ("gtp", "gtp:theta=0.6", "topk", "tome", "evit"),
    share: float = 0.75,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path(
        "tokenred-out/oversmoothing"
    ),
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Oversmoothing: how alike the image tokens become in each block, at the same cost.

    Without options: the embedded digits model and images. Only tokens alive after a block count.

    Args:
        share: of the dense model's GMACs that each strategy may cost; 1 for the strategies' own
            schedules.
        output: folder for oversmoothing.csv and oversmoothing.png.
        overwrite: replace what is there from an earlier run.
    """
    options["gmacs_share"] = None if share == 1 else share
    _measure(oversmoothing, model, data, strategy, output, overwrite, options, statistics=_PANELS)


def _measure(
    measure: Callable[..., Any],
    model: ModelOptions,
    data: DataOptions,
    strategies: tuple[str, ...],
    folder: Path,
    overwrite: bool,
    options: dict[str, Any],
    check: Callable[[int], None] = lambda _: None,
    **drawn: Any,
) -> None:
    """Measure, write table and picture, print the table."""
    source = data.source(model)
    specs = named_specs(strategies)
    name = measure.__name__
    csv, picture = claim_folder(folder, (f"{name}.csv", f"{name}.png"), overwrite=overwrite)
    loaded = model.load()
    check(adapt(loaded).info.depth)
    result = measure(loaded, source, specs, name=model.title, **data.arguments(), **options)
    result.to_csv(csv, overwrite=True)
    write_atomically(picture, figure_bytes(result.plot(**drawn)))
    console = make_console()
    console.print(result)
    say_written(console, (csv, picture))
