"""Oversmoothing: how similar the tokens become, block by block, for each strategy.

The statistics are functions of image tokens only, ``(b, n, c)``, and compute in fp32 or better
regardless of the dtype of the tokens, also under autocast. A value that is undefined for so few
tokens is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, nn

from tokenred.analysis.lineup import Entry, Strategies, lineup
from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.analysis.measure.inputs import Data
from tokenred.analysis.measure.machine import base_of, weights_digest
from tokenred.analysis.measure.per_image import means_over_images
from tokenred.analysis.result import FramedResult
from tokenred.analysis.terminal_table import plain_table
from tokenred.core.errors import InputError
from tokenred.core.tensors import at_least_fp32, unit_vectors
from tokenred.core.values import Count, PartOf, Size, checked
from tokenred.data.classes import ClassMap
from tokenred.reduced.trace import Reduction
from tokenred.strategies.config import fingerprint_if_any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOST = "lost"


def mean_cosine(
    tokens: Float[Tensor, "b n c"], alive: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, " b"]:
    """Mean cosine similarity over all pairs of different tokens, −1 … 1; 1 = all alike.

    From the sum of the unit vectors u, ``(‖Σu‖² − Σ‖u‖²) / (n(n − 1))``, so it costs ``O(n·c)``.
    A zero vector has similarity 0 to all others. Padding, where ``alive`` is False, does not count.
    NaN for a single token.

    Source: the quantity of GTP-ViT's Fig. 6 (Xu et al., WACV 2024).
    """
    unit = unit_vectors(tokens.detach())
    n = torch.full(unit.shape[:1], unit.shape[1], device=unit.device)
    if alive is not None:
        unit, n = unit * alive[..., None], alive.sum(dim=1)
    total = unit.sum(dim=1).square().sum(dim=-1) - unit.square().sum(dim=(1, 2))
    return torch.where(n > 1, total / n / (n - 1), torch.nan)


def effective_rank(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, " b"]:
    """The effective rank of the tokens, 1 … min(n, c).

    ``exp(H(p))`` with ``p_i = σ_i / Σσ`` over the singular values of the ``n × c`` matrix, not
    centred, and H the entropy in nats. It cannot exceed the number of tokens: compare it at equal
    counts. 0 if all tokens are zero. ``O(n·c·min(n, c))``, in fp64.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.
    """
    x = tokens.detach().double()  # which autocast does not change
    gram = x @ x.transpose(1, 2) if x.shape[1] <= x.shape[2] else x.transpose(1, 2) @ x
    # The eigenvalues are σ²; negative ones are rounding errors.
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = sigma.sum(dim=-1, keepdim=True)
    p = sigma / torch.where(total > 0, total, 1)
    entropy = -torch.xlogy(p, p).sum(dim=-1)
    rank = torch.where(total[:, 0] > 0, entropy.exp(), 0)
    return rank.to(at_least_fp32(tokens.dtype))


def high_frequency(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, " b"]:
    """Share of the energy ``Σ‖x‖²`` that is not in the mean of the tokens, 0 … 1; 0 = all alike.

    The mean is the zero-frequency component of a discrete Fourier transform over the tokens, and so
    the part that attention, a low-pass filter, eventually leaves. 0 if all tokens are zero.

    Source: Wang et al., "Anti-Oversmoothing in Deep Vision Transformers via the Fourier Domain
    Analysis", ICLR 2022.
    """
    x = tokens.detach().to(at_least_fp32(tokens.dtype))
    rest = (x - x.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
    energy = x.square().sum(dim=(1, 2))
    return rest / torch.where(energy > 0, energy, 1)


def lost_share(step: Reduction) -> Float[Tensor, " b"]:
    """Share of the tokens dropped in a reduction that contribute to no kept token.

    For GTP these are the tokens without a kept neighbour (or all, with α = 0); for pruning all of
    them; for merging and fusing none. NaN if nothing was dropped.
    """
    b, dropped = step.selection.drop.shape
    if not dropped:
        return torch.full((b,), torch.nan, device=step.selection.drop.device)
    reached = (step.weights.to_dense() != 0).any(dim=1)
    return 1 - reached.gather(1, step.selection.drop).float().mean(dim=1)


TOKEN_STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": mean_cosine,
    "effective_rank": effective_rank,
    "high_frequency": high_frequency,
}
"""By their names in frames."""


@dataclass(frozen=True, eq=False, repr=False)
class Oversmoothing(FramedResult):
    """Similarity of the image tokens after each block; ``print`` shows the last one.

    Attributes:
        frame: one row for each strategy, block and statistic: ``cosine`` (`mean_cosine`),
            ``effective_rank``, ``high_frequency``, and in blocks that drop tokens ``lost``
            (`lost_share`). ``mean`` over the images with its bootstrap interval; ``difference``
            from the dense model in the same block, paired by image, with its own. ``tokens``
            counts the image tokens after the block, ``removed`` those dropped in it, ``gmacs`` the
            cost of the model: means over the images where they depend on the image.
    """

    def table(self) -> Table:
        last = self.frame[self.frame["layer"] == self.frame["layer"].max()]
        table = plain_table(
            f"Image tokens after the last block: {self.about}",
            ["strategy", "GMACs", "tokens", "cosine similarity", "effective rank",
             "energy outside the mean (%)", "dropped tokens lost (%)"],
        )  # fmt: skip
        dropping = self.frame[(self.frame["statistic"] == _LOST) & (self.frame["removed"] > 0)]
        for strategy, rows in last.groupby("strategy", sort=False):
            by = rows.set_index("statistic")
            # Of all dropped tokens, over all blocks.
            lost = dropping[dropping["strategy"] == strategy]
            share = np.average(lost["mean"], weights=lost["removed"]) if len(lost) else None
            table.add_row(
                str(strategy),
                f"{by['gmacs'].iloc[0]:.3f}",
                f"{by['tokens'].iloc[0]:.4g}",
                _with_interval(by.loc["cosine"], 3),
                _with_interval(by.loc["effective_rank"], 2),
                _with_interval(by.loc["high_frequency"], 1, 100),
                "" if share is None else f"{100 * share:.1f}",
            )
        return table

    def plot(self, **options: Any) -> Figure:
        """See `tokenred.analysis.smoothing_curves`."""
        from tokenred.analysis.plots.smoothing_curves import smoothing_curves

        return smoothing_curves(self.frame, **options)


@checked
def oversmoothing(
    model: nn.Module,
    data: Data,
    strategies: Strategies,
    *,
    gmacs_share: float | None = None,
    limit: Size | None = None,
    batch_size: Size = 32,
    workers: Count = 0,
    device: str | torch.device | None = None,
    amp: torch.dtype | None = None,
    seed: Count = 0,
    level: PartOf = 0.95,
    split: str | None = None,
    class_map: ClassMap = None,
    name: str | None = None,
    progress: bool = True,
) -> Oversmoothing:
    """Measure how similar image tokens become on their way through the blocks.

    The dense model comes first, then each strategy, all on the same images. Features are the output
    of a block, before the model's final norm.

    **Only the tokens that remain after a block are counted.** Features of dropped tokens no longer
    exist, so a method may look less smooth because of *which* tokens it keeps, or because of what
    happens to them. Pruning the same selection (``gtp:fuser=prune``) or a random one (``random``)
    separates the two.

    Source: GTP-ViT, Fig. 6 (Xu et al., WACV 2024), with intervals and further statistics.

    Args:
        model: a dense model, or a `ReducedViT`, whose base is then used.
        data: see `tokenred.analysis.evaluate`.
        strategies: as for `tokenred.analysis.parse_spec`, or a mapping from labels to strategies.
        gmacs_share: share of the dense model's GMACs for each strategy, so that they are compared
            at the same cost (`at_budget`); None for their own schedules.
        limit, batch_size, workers, device, amp, split, class_map, progress: as in `evaluate`.
        seed: seed of the image subset and the bootstrap.
        level: level of the intervals.
        name: name of the model, for titles; by default the one that `load_model` takes.

    Raises:
        ConfigError: if a number is out of range, or a name is used twice.
        DataError: if the data is empty or does not fit the model.
        InputError: if images do not have the model's own size, or features are not finite.
        TokenredError: as raised by `parse_spec` and `tokenred.wrap`.
    """
    entries, left_out = lineup(model, strategies, gmacs_share=gmacs_share)
    costs = [entry.model.cost() for entry in entries]
    # Counts of tokens, image by image, of those in which they depend on the image.
    alive: dict[int, list[tuple[int, ...]]] = {
        at: [] for at, entry in enumerate(entries) if is_adaptive(entry.model)
    }
    rows: list[dict[str, Any]] = []
    places: dict[tuple[int, int, str], int] = {}
    for at, (entry, cost) in enumerate(zip(entries, costs, strict=True)):
        strategy, depth = entry.model.strategy, len(cost.layers)
        for layer in cost.layers:
            drops = layer.removed > 0 or strategy.selector.adaptive(layer.layer, depth)
            for statistic in (*TOKEN_STATISTICS, *[_LOST] * drops):
                places[at, layer.layer, statistic] = len(rows)
                rows.append({
                    "strategy": entry.label,
                    "method": entry.method,
                    "layer": layer.layer,
                    "statistic": statistic,
                    "gmacs": cost.gmacs,
                    "tokens": layer.tokens_out,
                    "removed": layer.removed,
                    "fingerprint": fingerprint_if_any(strategy) if at else "",
                })  # fmt: skip
    # From the dense model's, which comes first.
    minus = {
        row: places[0, layer, statistic]
        for (at, layer, statistic), row in places.items()
        if at and statistic != _LOST
    }
    frame, notes = means_over_images(
        [entry.model for entry in entries], data, rows,
        lambda images: _measure(entries, images, alive),
        title="oversmoothing", level=level, name=name, seed=seed, minus=minus, split=split,
        class_map=class_map, batch_size=batch_size, workers=workers, limit=limit, device=device,
        amp=amp, progress=progress,
    )  # fmt: skip
    for at, counts in alive.items():
        own, mean = frame["strategy"] == entries[at].label, np.mean(counts, axis=0)
        after = frame.loc[own, "layer"] + 1
        gmacs = {row: entries[at].model.cost(alive=row).gmacs for row in set(counts)}
        frame = frame.astype({"tokens": float, "removed": float})
        frame.loc[own, "tokens"] = mean[after]
        frame.loc[own, "removed"] = mean[after - 1] - mean[after]
        frame.loc[own, "gmacs"] = np.mean([gmacs[row] for row in counts])
    frame["weights"] = weights_digest(base_of(model))
    remain = (
        "Only the tokens that remain after a block are counted. A smaller number of them bounds "
        "the effective rank."
    )
    return Oversmoothing(frame, level, (*left_out, *notes, remain))


def _measure(
    entries: Sequence[Entry], images: Tensor, alive: Mapping[int, list[tuple[int, ...]]]
) -> NDArray[np.float32]:
    """``(b, rows)``: for each strategy and block the statistics, and what is lost where any is."""
    columns = []
    for at, entry in enumerate(entries):
        # One by one where a batch would be padded.
        parts = images.split(1 if at in alive else len(images))
        columns.append(torch.cat([_statistics(entry, part, alive.get(at)) for part in parts]))
    values: NDArray[np.float32] = torch.cat(columns, dim=1).cpu().numpy()
    return values


def _statistics(entry: Entry, images: Tensor, alive: list[tuple[int, ...]] | None) -> Tensor:
    _, trace = entry.model.run_with_trace(images)
    own, found = entry.model.info.num_patches, trace.start.num_tokens
    if own != found:
        raise InputError(
            f"{entry.label}: expected images of the model's own size, which give {own} image "
            f"tokens, got a size that gives {found}; resize them."
        )
    if not torch.isfinite(trace.features[-1]).all():
        raise InputError(
            f"{entry.label}: expected finite features from the last block, got NaN or infinity; "
            "check the weights and the precision."
        )
    if alive is not None:
        alive.append((own, *trace.tokens_per_layer))
    lost = {step.layer: lost_share(step) for step in trace.steps}
    columns: list[Tensor] = []
    for layer, features in enumerate(trace.features):
        tokens = features[:, trace.num_prefix :]
        columns += [statistic(tokens) for statistic in TOKEN_STATISTICS.values()]
        columns += [lost[layer]] if layer in lost else []
    return torch.stack(columns, dim=1)


def _with_interval(row: pd.Series, digits: int, factor: float = 1) -> str:
    mean, low, high = (f"{factor * row[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low}, {high})"
