"""The answers to the needs, and how they are read off a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tokenred.attention.need import Need
from tokenred.core.errors import ConfigError, PartError
from tokenred.core.tensors import at_least_fp32, product

__all__ = [
    "AttentionStats",
    "mean_keys",
    "over_heads",
    "row_index",
    "stats_of_heads",
    "stats_of_map",
]


@dataclass(frozen=True, eq=False)
class AttentionStats:
    """The statistics of one block's attention: ``attention[Need.diagonal("max")]``."""

    values: Mapping[Need, Tensor] = field(default_factory=dict)

    def __getitem__(self, need: Need) -> Tensor:
        """The statistic asked for.

        Raises:
            PartError: where the part did not declare it in ``needs``, or reads it before the
                block, where no attention has run.
        """
        if need not in self.values:
            given = ", ".join(str(n) for n in self.values) or "none"
            raise PartError(
                f"{need} was not computed for this block (computed: {given}). Declare it in the "
                "part's `needs`; a strategy with where='before_block' has no attention to read."
            )
        return self.values[need]


def mean_keys(attention: AttentionStats) -> Float[Tensor, "b N d"]:
    """The mean of `Need.keys` over heads, in fp32 or better."""
    keys = attention[Need.keys()]
    return keys.mean(dim=1, dtype=at_least_fp32(keys.dtype))


def over_heads(per_head: Float[Tensor, "b h ..."], aggregate: str) -> Float[Tensor, "b ..."]:
    """⊕ over heads: ``max`` or ``mean``."""
    return per_head.amax(dim=1) if aggregate == "max" else per_head.mean(dim=1)


def row_index(need: Need, num_prefix: int, cls_index: int | None) -> int:
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
    needs: tuple[Need, ...],
    num_prefix: int,
    cls_index: int | None,
) -> dict[Need, Tensor]:
    """The statistics that need no softmax: keys, values and rows of logits."""
    found: dict[Need, Tensor] = {}
    for need in needs:
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
    needs: tuple[Need, ...],
    num_prefix: int,
    cls_index: int | None,
) -> dict[Need, Tensor]:
    """The statistics of a map, as their definitions say; what every engine is tested against.

    Source: GTP-ViT (arXiv 2311.03035), Eq. 3 and 4.
    """
    found: dict[Need, Tensor] = {}
    diagonal = torch.diagonal(attention, dim1=-2, dim2=-1)[..., num_prefix:]
    for need in needs:
        if need.kind == "diagonal":
            found[need] = over_heads(diagonal, need.aggregate)
        elif need.kind == "received":
            received = attention.sum(dim=-2)[..., num_prefix:]
            if need.exclude_self:
                received = received - diagonal
            found[need] = over_heads(received, need.aggregate)
        elif need.kind == "row":
            row = row_index(need, num_prefix, cls_index)
            found[need] = over_heads(attention[:, :, row, num_prefix:], need.aggregate)
        elif need.kind == "maps":
            found[need] = attention
        elif need.kind == "map":
            found[need] = over_heads(attention, need.aggregate)
    return found
