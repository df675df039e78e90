"""What a part asks of the attention, the answers, and how they are read off a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.core.errors import ConfigError, PartError
from tokenred.core.tensors import at_least_fp32, product

__all__ = [
    "Aggregate",
    "AttentionStat",
    "AttentionStats",
    "mean_keys",
    "over_heads",
    "row_index",
    "stats_of_heads",
    "stats_of_map",
]


Aggregate = Literal["max", "mean"]


class AttentionStat(NamedTuple):
    """One attention statistic. Make it with the constructors below.

    Statistics of tokens cover the living image tokens only: prefix tokens are never scored.
    The aggregation over heads is part of the need, because the maximum over heads does not
    commute with taking a token's own entry out.
    """

    kind: str
    aggregate: str = ""
    exclude_self: bool = False
    query: int | str = ""

    @staticmethod
    def diagonal(aggregate: str = "max") -> AttentionStat:
        """``A_ii``: what a token keeps of itself. ``(b, n)``."""
        return AttentionStat("diagonal", _checked(aggregate))

    @staticmethod
    def column_sum(aggregate: str = "max", exclude_self: bool = True) -> AttentionStat:
        """``Σ_j A_ji``: what all tokens, prefix included, take from token i. ``(b, n)``.

        With ``exclude_self`` the token's own entry is left out, head by head.
        """
        return AttentionStat("column_sum", _checked(aggregate), exclude_self)

    @staticmethod
    def row(query: int | str = "cls", aggregate: str = "max") -> AttentionStat:
        """``A_ri``: the attention of one prefix token. ``(b, n)``."""
        return AttentionStat("row", _checked(aggregate), query=query)

    @staticmethod
    def logits_row(query: int | str = "cls", aggregate: str = "mean") -> AttentionStat:
        """``q_r·k_i/√d``: the same before bias and softmax. ``(b, n)``."""
        return AttentionStat("logits_row", _checked(aggregate), query=query)

    @staticmethod
    def map(aggregate: str = "mean") -> AttentionStat:
        """The whole map ``A``, aggregated over heads. ``(b, N, N)``. No fast engine has it."""
        return AttentionStat("map", _checked(aggregate))

    @staticmethod
    def maps() -> AttentionStat:
        """The whole map of each head. ``(b, h, N, N)``. No fast engine has it."""
        return AttentionStat("maps")

    @staticmethod
    def kept() -> AttentionStat:
        """The share of the map's entries that θ left, 1 where there is no θ. ``(b, h)``."""
        return AttentionStat("kept")

    @staticmethod
    def keys() -> AttentionStat:
        """The keys that enter attention (after k-norm). ``(b, h, N, d)``."""
        return AttentionStat("keys")

    @staticmethod
    def values() -> AttentionStat:
        """The values. ``(b, h, N, d)``."""
        return AttentionStat("values")


@dataclass(frozen=True, eq=False)
class AttentionStats:
    """The statistics of one block's attention: ``attention[AttentionStat.diagonal("max")]``."""

    values: Mapping[AttentionStat, Tensor] = field(default_factory=dict)

    def __getitem__(self, need: AttentionStat) -> Tensor:
        """The statistic asked for.

        Raises:
            PartError: where the part did not declare it in ``requires``, or reads it before the
                block, where no attention has run.
        """
        if need not in self.values:
            given = ", ".join(str(n) for n in self.values) or "none"
            raise PartError(
                f"{need} was not computed for this block (computed: {given}). Declare it in the "
                "part's `requires`; a strategy with where='before_block' has no attention to read."
            )
        return self.values[need]


def mean_keys(attention: AttentionStats) -> Float[Tensor, "b N d"]:
    """The mean of `AttentionStat.keys` over heads, in fp32 or better."""
    keys = attention[AttentionStat.keys()]
    return keys.mean(dim=1, dtype=at_least_fp32(keys.dtype))


def over_heads(per_head: Float[Tensor, "b h ..."], aggregate: str) -> Float[Tensor, "b ..."]:
    """⊕ over heads: ``max`` or ``mean``."""
    return per_head.amax(dim=1) if aggregate == "max" else per_head.mean(dim=1)


def row_index(need: AttentionStat, num_prefix: int, cls_index: int | None) -> int:
    """The query row that a need names.

    Raises:
        ConfigError: where the model has no such prefix token.
    """
    if need.query == "cls":
        if cls_index is None:
            raise ConfigError(f"{need} asks for the CLS row of a model without a CLS token.")
        return cls_index
    if not isinstance(need.query, int) or not 0 <= need.query < num_prefix:
        raise ConfigError(
            f"{need}: a row is 'cls' or the number of a prefix token below {num_prefix}, "
            f"got {need.query!r}."
        )
    return need.query


def stats_of_heads(
    q: Float[Tensor, "b h N d"],
    k: Float[Tensor, "b h N d"],
    v: Float[Tensor, "b h N d"],
    scale: float,
    requires: tuple[AttentionStat, ...],
    num_prefix: int,
    cls_index: int | None,
) -> dict[AttentionStat, Tensor]:
    """The statistics that need no softmax: keys, values and rows of logits."""
    found: dict[AttentionStat, Tensor] = {}
    for need in requires:
        if need.kind == "keys":
            found[need] = k
        elif need.kind == "values":
            found[need] = v
        elif need.kind == "logits_row":
            row = row_index(need, num_prefix, cls_index)
            logits = product(q[:, :, row : row + 1], k[:, :, num_prefix:].transpose(-2, -1))
            found[need] = over_heads(logits.squeeze(2) * scale, need.aggregate)
    return found


def stats_of_map(
    attention: Float[Tensor, "b h N N"],
    requires: tuple[AttentionStat, ...],
    num_prefix: int,
    cls_index: int | None,
) -> dict[AttentionStat, Tensor]:
    """The statistics of a map, as their definitions say; what every engine is tested against.

    Source: GTP-ViT (arXiv 2311.03035), Eq. 3 and 4.
    """
    found: dict[AttentionStat, Tensor] = {}
    diagonal = torch.diagonal(attention, dim1=-2, dim2=-1)[..., num_prefix:]
    for need in requires:
        if need.kind == "diagonal":
            found[need] = over_heads(diagonal, need.aggregate)
        elif need.kind == "column_sum":
            column_sum = attention.sum(dim=-2)[..., num_prefix:]
            if need.exclude_self:
                column_sum = column_sum - diagonal
            found[need] = over_heads(column_sum, need.aggregate)
        elif need.kind == "row":
            row = row_index(need, num_prefix, cls_index)
            found[need] = over_heads(attention[:, :, row, num_prefix:], need.aggregate)
        elif need.kind == "maps":
            found[need] = attention
        elif need.kind == "map":
            found[need] = over_heads(attention, need.aggregate)
    return found


def _checked(aggregate: str) -> str:
    if aggregate not in ("max", "mean"):
        raise ConfigError(f"aggregate must be 'max' or 'mean' over heads, got {aggregate!r}.")
    return aggregate
