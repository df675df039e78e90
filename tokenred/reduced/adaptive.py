"""Images that keep different numbers of tokens: what each of them costs, and which heads fit.

The closed form of `tokenred.gmacs` knows no image, and counts such a model as if nothing went: an
upper bound. Here the counts are those of images that ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, InputError
from tokenred.core.state import Selection, TokenState
from tokenred.reduced.cost import Cost
from tokenred.reduced.plan import strategy_cost
from tokenred.reduced.trace import Recorder

if TYPE_CHECKING:
    from tokenred.backbones.base import Backbone
    from tokenred.reduced.model import ReducedViT
    from tokenred.strategies.base import Fuser
    from tokenred.strategies.strategy import Strategy

__all__ = ["alive_counts", "check_padded", "cost_of_counts"]


def check_padded(backbone: Backbone, strategy: Strategy) -> None:
    """Refuse what would count padding among the tokens: θ, and some heads.

    Raises:
        ConfigError: with what is in the way.
    """
    if strategy.theta < 1:
        raise ConfigError(
            f"{strategy.selector!r} keeps a number of tokens that depends on the image, so batches "
            f"are padded, and theta={strategy.theta} would count the padding. Use theta=1."
        )
    if backbone.pooling == "unknown":
        raise ConfigError(
            f"{strategy.selector!r} keeps a number of tokens that depends on the image, so batches "
            f"are padded, and the head of {backbone.info.name} cannot leave padding out. Use a "
            "model that pools by token, average or maximum."
        )


@torch.no_grad()
def alive_counts(
    reduced: ReducedViT, images: Float[Tensor, "b ch H W"]
) -> Int[Tensor, "b layers_and_1"]:
    """Image tokens of each image before the first block and after every block, without padding."""
    state, plans = reduced._start(images)
    counts = _Counts(state)
    reduced._runner(state, plans, recorder=counts)
    start = torch.full_like(counts.alive[0], state.num_tokens)
    return torch.stack((start, *counts.alive), dim=1)


def cost_of_counts(
    reduced: ReducedViT, counts: Sequence[int], image_size: tuple[int, int] | None = None
) -> Cost:
    """What an image costs that has these image tokens: the closed form at its own counts.

    All rows of a block's attention are computed before its tokens are chosen, and count; a
    program that computes the chosen rows only would save a little more.

    Args:
        reduced: the model.
        counts: tokens before the first block and after every block, as `alive_counts` gives them.
        image_size: (height, width); None for the model's own.

    Raises:
        InputError: for counts that are not one more than the model has blocks, or that grow.
    """
    info, extra = reduced.info, reduced.strategy.fuser.extra
    counts = [int(count) for count in counts]
    gone = [before - after for before, after in pairwise(counts)]
    depth = len(reduced.backbone.blocks)
    if len(gone) != depth or min(gone) < 0:
        raise InputError(
            f"expected {depth + 1} counts that never grow, before the first block and after "
            f"each, got {counts}."
        )
    stem = reduced.backbone.stem_macs(image_size)
    if image_size is not None:
        reduced.backbone.check_size(*image_size)
        info = info.at(reduced.backbone.grid_of(*image_size))
    removed = [count + extra if count else 0 for count in gone]
    return strategy_cost(reduced.strategy, info.with_tokens(counts[0]), removed, stem)


class _Counts(Recorder):
    """Notes how many tokens live, and no features."""

    def reduction(
        self,
        before: TokenState,
        selection: Selection,
        attention: AttentionStats,
        fuser: Fuser,
    ) -> None:
        pass

    def block(self, state: TokenState) -> None:
        size = state.image_size
        alive = torch.ones_like(state.index) if size is None else (size > 0).long()
        self.alive.append(alive.sum(dim=1))
