"""DiffRate's order."""

import torch

from tokenred.attention import AttentionStat, AttentionStats
from tokenred.core.info import ModelInfo
from tokenred.core.part import Traits
from tokenred.core.state import Selection, TokenState
from tokenred.core.tensors import cosines
from tokenred.core.values import Sizes
from tokenred.strategies.base import Selector, selectors
from tokenred.strategies.schedules.keep_count import stretched


@selectors.register("ImportanceOrder")
class ImportanceOrder(Selector):
    """Prune the least important tokens and merge the next ones into the rest (DiffRate).

    Tokens are ordered by the mean attention of CLS. Those after the first ``prune_kept`` are
    dropped; the rest, except for the ``n − P`` most important, merge, each into the most similar of
    the latter by the cosine of the features. Source: Chen et al., ICCV 2023.

    Args:
        prune_kept: image tokens that pruning leaves in each block; None, or more than there are,
            prunes none.
        made_for: image tokens of the model that the list was made for; for others it is stretched
            over the blocks and scaled. None uses the numbers unchanged.

    Shapes:
        returns: ``keep (b, n−P)`` by descending importance; ``drop (b, P)`` likewise;
            ``partner (b, P)``, −1 for pruned tokens.
    """

    traits = Traits(needs_cls=True)

    prune_kept: Sizes | None = None
    made_for: int | None = None

    requires = (AttentionStat.row("cls", "mean"),)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        return float((tokens - removed) * removed * info.width)

    def __call__(self, state: TokenState, attention: AttentionStats, count: int) -> Selection:
        n = state.num_tokens
        importance = attention[self.requires[0]]
        order = importance.sort(dim=1, descending=True, stable=True).indices
        keep, drop = order[:, : n - count], order[:, n - count :]
        merged = max(0, min(count, self._left(state) - keep.shape[1]))
        nearest = cosines(state.image, drop[:, :merged], keep).argmax(dim=-1)
        none = torch.full_like(drop[:, merged:], -1)
        partner = torch.cat((keep.gather(1, nearest), none), dim=1)
        return Selection(keep=keep, drop=drop, partner=partner, score=importance)

    def _left(self, state: TokenState) -> int:
        """Tokens after pruning."""
        if self.prune_kept is None:
            return state.num_tokens
        return stretched(
            self.prune_kept, self.made_for, state.layer, state.depth, state.num_patches
        )
