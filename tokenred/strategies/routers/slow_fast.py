"""Evo-ViT's slow and fast tokens."""

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.capture import replace
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import TokenState
from tokenred.core.tensors import gather_tokens, weighted_mean
from tokenred.core.values import LaterBlocks, Probability, Share
from tokenred.strategies.base import Router, routers
from tokenred.strategies.schedule import exact

_KEY = "global_cls_attention"
_ROW = AttentionStat.row("cls", "mean")


@routers.register("slow_fast")
class SlowFast(Router):
    """Informative tokens pass, with a representative of the rest (Evo-ViT, Xu et al., AAAI 2022).

    The global attention of CLS is that of the block before the first stage, and after that
    ``g ← (1−t)g + t·A_cls`` in every block, for the tokens that pass it. At the start of a stage
    the share with the highest g becomes informative, until the end of the stage. A representative
    of the others, ``Σ g_i x_i / Σ g``, passes with them, and what the blocks add to it is added to
    each of the other tokens; none is lost. Recomputing the representative in each block would give
    the same result, because all other tokens receive the same update.

    Training has the same form: the gather is differentiable, so inference matches training. The
    paper first trains with a choice in every block: ``stagewise=False``.

    A is the mean over heads here, the sum in the paper: the factor affects neither the order nor
    the weights of the representative.

    Args:
        keep_rate: share ρ of informative tokens, ``max(1, ⌊ρ·N0⌋)`` of N0.
        layers: blocks in which a stage starts, ascending, from 1 on; None for the thirds of the
            depth (4 and 8 of 12). The last stage ends with the model.
        t: weight of a block's attention relative to earlier blocks.
        representative: False leaves the other tokens unchanged, as in the released DeiT code.
        stagewise: choose at the start of a stage; False to choose in every block from the first
            stage on.

    Shapes:
        memory: ``global_cls_attention (b, n)``.
    """

    traits = Traits(needs_cls=True)
    version = 2

    keep_rate: Share = 0.5
    # A block must run before tokens can be ranked.
    layers: LaterBlocks | None = None
    t: Probability = 0.5
    representative: bool = True
    stagewise: bool = True

    requires = (_ROW,)

    def _starts(self, depth: int) -> tuple[int, ...]:
        if self.layers is None:
            starts = tuple(sorted({max(1, depth // 3), max(1, 2 * depth // 3)}))
        else:
            starts = self.layers
        return starts if self.stagewise else tuple(range(starts[0], depth))

    def active(self, layer: int, depth: int, patches: int) -> int | None:
        informative = max(1, math.floor(exact(self.keep_rate) * patches))
        if layer < self._starts(depth)[0] or informative >= patches:
            return None
        return informative + int(self.representative)

    def with_budget(self, share: Fraction) -> Router:
        return replace(self, keep_rate=float(share))

    def rejoins(self, layer: int, depth: int) -> bool:
        return layer + 1 in (*self._starts(depth), depth)

    def watches(self, layer: int, depth: int) -> bool:
        first = self._starts(depth)[0]
        return layer == first - 1 and first < depth and self.keep_rate < 1

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        # The representative.
        return float(removed * info.width)

    def observe(self, state: TokenState, attention: AttentionStats) -> TokenState:
        seen, before = attention[_ROW], state.memory.get(_KEY)
        new = seen if before is None else (1 - self.t) * before + self.t * seen
        return replace(state, memory={**state.memory, _KEY: new})

    def split(
        self, state: TokenState, preview: AttentionStats, count: int
    ) -> tuple[TokenState, Mapping[str, Tensor]]:
        g = state.memory[_KEY]
        b, k = g.shape[0], count - int(self.representative)
        order = g.sort(dim=1, descending=True, stable=True).indices
        chosen, rest = order[:, :k].sort(dim=1).values, order[:, k:]
        kept, active = g.gather(1, chosen), state.take(chosen)
        fast = rest + state.num_prefix
        resting = {"slow": state.places(chosen), "fast": fast}
        if self.representative:
            one = weighted_mean(gather_tokens(state.x, fast), g.gather(1, rest))
            resting["representative"] = one
            kept = torch.cat((kept, kept.new_zeros(b, 1)), dim=1)
            size = None
            if active.size is not None and state.size is not None:
                all_of_them = state.size.gather(1, fast).sum(dim=1, keepdim=True)
                size = torch.cat((active.size, all_of_them), dim=1)
            nowhere = active.index.new_full((b, 1), -1)
            active = replace(
                active,
                x=torch.cat((active.x, one), dim=1),
                index=torch.cat((active.index, nowhere), dim=1),
                size=size,
            )
        return replace(active, memory={**state.memory, _KEY: kept}), resting

    def join(
        self,
        before: TokenState,
        active: TokenState,
        resting: Mapping[str, Tensor],
        attention: AttentionStats,
    ) -> TokenState:
        slow, fast = resting["slow"], resting["fast"]
        count, width = slow.shape[1], before.x.shape[2]
        x = before.x.scatter(1, slow[..., None].expand(-1, -1, width), active.x[:, :count])
        if self.representative:
            added = active.x[:, count:] - resting["representative"]
            at = fast[..., None].expand(-1, -1, width)
            x = x.scatter(1, at, gather_tokens(before.x, fast) + added)
        p = before.num_prefix
        g = active.memory[_KEY][:, : count - p]
        g = before.memory[_KEY].scatter(1, slow[:, p:] - p, g)
        memory = {**active.memory, _KEY: g}
        whole = {"index": before.index, "size": before.size, "token_grid": before.token_grid}
        return replace(active, x=x, memory=memory, **whole)
