"""Attention of the class token."""

from typing import Literal

from tokenred.attention import AttentionStat
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part, Traits
from tokenred.core.values import Aggregate
from tokenred.strategies.base import Scorer, scorers
from tokenred.strategies.scorers.broad_attn import BroadAttn


@scorers.register("CLSAttn")
class CLSAttn(Scorer):
    """The attention of the CLS token: ``⊕ A_cls,i`` (EViT, Liang et al., ICLR 2022; GTP, Fig. 5).

    Args:
        aggregate: ⊕ over heads, ``"max"`` or ``"mean"`` (EViT's).
        without_cls: on a model without CLS, ``"refuse"``, or score by the ``"column_sum"``, the
            attention received from all tokens.
    """

    aggregate: Aggregate = "max"
    without_cls: Literal["refuse", "column_sum"] = "refuse"

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """CLS is needed unless another score may replace it."""
        return Traits(needs_cls=self.without_cls == "refuse")

    def build(self, info: ModelInfo) -> Part:
        return self if info.cls_index is not None else BroadAttn(self.aggregate)

    @property
    def requires(self) -> tuple[AttentionStat, ...]:
        return (AttentionStat.row("cls", self.aggregate),)
