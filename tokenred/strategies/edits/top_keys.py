"""Tri-Level's mask: each token attends to those it attends to most."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.edits import AttentionEdit, attention_edits
from tokenred.core.errors import ConfigError
from tokenred.core.info import ModelInfo
from tokenred.core.part import check_count, check_number
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.strategies.schedules import exact, quarters

__all__ = ["TopKeys"]


@attention_edits.register("TopKeys")
class TopKeys(AttentionEdit):
    """Image tokens attend to their best ``⌈r·n⌉`` image keys (Tri-Level, Kong et al., AAAI 2023).

    The best are those of the mean map over heads, the same for all heads; of equal ones the first.
    The 0/1 mask multiplies ``exp(logits)`` before the normalisation: rows still sum to 1. Rows and
    columns of prefix tokens, CLS among them, are always on. The entries that are masked were
    computed first, so nothing is saved but on hardware that skips them.

    That the block's own map decides, and that every later block is masked, is our reading.

    Args:
        ratio: r in (0, 1].
        after: blocks after this one are masked; None for the first quarter of the depth (3 of 12).
    """

    ratio: float = 0.3
    after: int | None = None

    def __post_init__(self) -> None:
        check_number(self, "ratio", self.ratio, low=0, high=1, open_low=True)
        if self.after is not None:
            check_count(self, "after", self.after)

    def check(self, info: ModelInfo) -> None:
        super().check(info)
        if self.after is not None and self.after >= info.depth:
            raise ConfigError(
                f"TopKeys: block {self.after} is named, {info.name} has 0 to {info.depth - 1}."
            )

    def active(self, layer: int, depth: int) -> bool:
        first = quarters(depth)[0] if self.after is None else self.after
        return self.ratio < 1 and layer > first

    def __call__(
        self, logits: Float[Tensor, "b h N N"], state: TokenState
    ) -> Float[Tensor, "b h N N"]:
        p = state.num_prefix
        n = logits.shape[-1] - p
        size, share = state.image_size, exact(self.ratio)
        living = n if size is None else (size > 0).sum(dim=1)[:, None, None]
        count = -(-share.numerator * living // share.denominator)  # rounded up
        scores = logits.detach()[:, :, p:].to(at_least_fp32(logits.dtype))
        among = scores.softmax(dim=-1)[..., p:].mean(dim=1)
        order = among.sort(dim=-1, descending=True, stable=True).indices
        best = (torch.arange(n, device=logits.device) < count).expand_as(order)
        shape = (logits.shape[0], *logits.shape[2:])
        on = torch.ones(shape, dtype=torch.bool, device=logits.device)
        on[:, p:, p:] = torch.zeros_like(best).scatter(-1, order, best)
        return logits.masked_fill(~on[:, None], -torch.inf)
