"""A keep rate in some blocks."""

import math
from fractions import Fraction
from typing import Literal

from tokenred.core.errors import ScheduleError
from tokenred.core.values import Blocks, Share, Shares
from tokenred.strategies.schedule import (
    Schedule,
    ScheduleContext,
    check_each,
    exact,
    layers_of,
    schedules,
    spread,
)


@schedules.register("KeepRatio")
class KeepRatio(Schedule):
    """Keep a share ρ of the tokens in some blocks (EViT's, DynamicViT's).

    Args:
        ratio: ρ in (0, 1]; one number, or one for each of `layers`.
        layers: blocks, ascending; None for the quarters of the depth, ``"all"`` for every block.
        rounding: of the number of kept tokens, ``"ceil"`` or ``"floor"``.
        of: whether ρ is relative to the remaining tokens (``"alive"``), to these and the prefix
            (``"sequence"``), or to those at the start (``"start"``), where one number means
            ρ, ρ², ρ³ …
    """

    keeps = "ratio"

    ratio: Share | Shares = 0.7
    layers: Blocks | Literal["all"] | None = None
    rounding: Literal["ceil", "floor"] = "ceil"
    of: Literal["alive", "sequence", "start"] = "alive"

    def __post_init__(self) -> None:
        if isinstance(self.layers, tuple):  # the quarters depend on the model
            check_each(self, "ratio", self.layers)

    def scaled(self, share: float, context: ScheduleContext) -> tuple[int, ...]:
        if not isinstance(self.ratio, tuple):
            return super().scaled(share, context)
        if (whole := math.prod(self.ratio)) == 1:
            return spread(self, (), share, context)
        power = math.log(share) * len(self.ratio) / math.log(whole)
        return self.replace(ratio=tuple(r**power for r in self.ratio)).resolve(context)

    def count(self, layer: int, tokens: int, context: ScheduleContext) -> int:
        shares = self._shares(context.depth)
        if layer not in shares:
            return 0
        prefix = context.prefix if self.of == "sequence" else 0
        kept = shares[layer] * (context.patches if self.of == "start" else tokens + prefix)
        rounded = math.ceil(kept) if self.rounding == "ceil" else math.floor(kept)
        return max(0, tokens - max(1, rounded - prefix))

    def share(self, layer: int, context: ScheduleContext) -> float:
        so_far = [s for block, s in self._shares(context.depth).items() if block <= layer]
        if self.of != "start":
            return float(math.prod(so_far))
        return float(min(so_far, default=1))

    def _shares(self, depth: int) -> dict[int, Fraction]:
        """The keep rate of each block, relative to `of`."""
        layers = layers_of(self, self.layers, depth)
        if not isinstance(self.ratio, tuple):
            ratio, powers = exact(self.ratio), self.of == "start"
            return {x: ratio ** (i + 1 if powers else 1) for i, x in enumerate(layers)}
        if len(self.ratio) != len(layers):
            raise ScheduleError(
                f"{self!r}: {len(self.ratio)} ratios for the {len(layers)} blocks {layers}."
            )
        return {x: exact(ratio) for x, ratio in zip(layers, self.ratio, strict=True)}
