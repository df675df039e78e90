"""``tokenred agreement`` and ``oversmoothing``: what happens from block to block."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from tokenred.cli.console import claim_folder, say
from tokenred.cli.options import (
    OUTPUT,
    ClassMap,
    Data,
    ModelOptions,
    Overwrite,
    Strategies,
    model_and_data,
    options_of,
    read_class_map,
    valid,
)
from tokenred.cli.refusing import refuse_budgets
from tokenred.core.errors import ConfigError
from tokenred.core.files import write_atomically
from tokenred.core.values import Count

_OUT = Path("tokenred-out")
_PANELS = ("cosine", "cosine_difference", "high_frequency", "effective_rank")


@options_of("tokenred.analysis:agreement", leave_out="strategies name", removed="--removed -P")
def agreement_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: Data = None,
    class_map: ClassMap = None,
    strategy: Strategies = ("gtp", "topk", "tome", "evit", "random"),
    statistic: Literal["iou", "survival", "scores"] = "iou",
    layer: Annotated[int | None, valid(Count, "--layer")] = None,
    output: Annotated[Path, OUTPUT] = _OUT / "agreement",
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Compare which patches methods keep.

    All keep the same number in every block. Without options: the bundled digits model and images.

    Args:
        statistic: the statistic to draw.
        layer: draw a matrix of methods for this block.
        output: folder for agreement.csv and agreement.png.
    """
    if len(strategy) < 2:
        raise ConfigError(f"expected two strategies or more to compare, got {len(strategy)}.")
    refuse_budgets(strategy, "but here all remove the same counts; leave it out")
    options["class_map"] = read_class_map(class_map)
    _measure("agreement", model, data, strategy, output, overwrite, options,
             statistic=statistic, layer=layer)  # fmt: skip


@options_of("tokenred.analysis:oversmoothing", leave_out="strategies name gmacs_share")
def oversmoothing_command(
    *,
    model: ModelOptions = ModelOptions(),
    data: Data = None,
    class_map: ClassMap = None,
    strategy: Strategies = ("gtp", "gtp:theta=0.6", "topk", "tome", "evit"),
    share: float = 0.75,
    output: Annotated[Path, OUTPUT] = _OUT / "oversmoothing",
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Measure how alike tokens become.

    Image tokens in each block, at the same cost; only tokens that remain after a block are counted.
    Without options: the bundled digits model and images.

    Args:
        share: the share of the dense model's GMACs that each strategy may cost; 1 for the
            strategies' own schedules.
        output: folder for oversmoothing.csv and oversmoothing.png.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"expected --share between 0 and 1, got {share:g}.")
    if share < 1:
        refuse_budgets(strategy, "but --share sets that of all; leave it out, or pass --share 1")
    options |= {"gmacs_share": None if share == 1 else share}
    options["class_map"] = read_class_map(class_map)
    _measure("oversmoothing", model, data, strategy, output, overwrite, options,
             statistics=_PANELS)  # fmt: skip


def _measure(
    name: str,
    model: ModelOptions,
    data: str | None,
    strategies: tuple[str, ...],
    folder: Path,
    overwrite: bool,
    options: dict[str, Any],
    **drawn: Any,
) -> None:
    """Measure block by block, write the table and the picture, and print the table."""
    model, source = model_and_data(model, data, options.get("split"), options["class_map"])
    csv, picture = claim_folder(folder, f"{name}.csv", f"{name}.png", overwrite=overwrite)
    model.refuse_unreachable()
    from tokenred import analysis
    from tokenred.analysis.lineup import named_specs
    from tokenred.analysis.plots.canvas import figure_bytes
    from tokenred.backbones import adapt

    specs = named_specs(strategies)
    loaded = model.load()
    layer, depth = drawn.get("layer"), adapt(loaded).info.depth
    if layer is not None and not 0 <= layer < depth:
        raise ConfigError(f"expected --layer from 0 to {depth - 1}, got {layer}.")
    result = getattr(analysis, name)(loaded, source, specs, name=model.title, **options)
    result.to_csv(csv, overwrite=True)
    write_atomically(picture, figure_bytes(result.plot(**drawn)))
    say(result, written=(csv, picture))
