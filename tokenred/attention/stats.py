"""Attention statistics: declaring them, their values, and computing them from a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenred.core.errors import ConfigError, PartError, shown
from tokenred.core.state import TokenState
from tokenred.core.tensors import at_least_fp32
from tokenred.core.values import Aggregate as Aggregate


class AttentionStat(NamedTuple):
    """One attention statistic; create it with the constructors below.

    Statistics of tokens cover the remaining image tokens only: prefix tokens are never scored. The
    aggregation over heads is part of the statistic, because the maximum over heads does not commute
    with excluding a token's own entry.
    """

    kind: str
    aggregate: str = ""
    exclude_self: bool = False
    query: int | str = ""

    @staticmethod
    def diagonal(aggregate: str = "max") -> AttentionStat:
        """``A_ii``: the attention of each token to itself. ``(b, n)``."""
        return AttentionStat("diagonal", _checked(aggregate))

    @staticmethod
    def column_sum(aggregate: str = "max", exclude_self: bool = True) -> AttentionStat:
        """``Σ_j A_ji``: attention received by token i from all, prefix included. ``(b, n)``.

        With ``exclude_self`` the token's own entry is excluded, separately for each head.
        """
        return AttentionStat("column_sum", _checked(aggregate), exclude_self)

    @staticmethod
    def row(query: int | str = "cls", aggregate: str = "max") -> AttentionStat:
        """``A_ri``: the attention of a prefix token, ``"cls"`` or its number. ``(b, n)``."""
        return AttentionStat("row", _checked(aggregate), query=_prefix_token(query))

    @staticmethod
    def logits_row(query: int | str = "cls", aggregate: str = "mean") -> AttentionStat:
        """``q_r·k_i/√d``: the same before bias and softmax. ``(b, n)``."""
        return AttentionStat("logits_row", _checked(aggregate), query=_prefix_token(query))

    @staticmethod
    def map(aggregate: str = "mean") -> AttentionStat:
        """The whole map ``A``, aggregated over heads. ``(b, N, N)``. No fast engine has it."""
        return AttentionStat("map", _checked(aggregate))

    @staticmethod
    def maps() -> AttentionStat:
        """The whole map of each head. ``(b, h, N, N)``. Of the fast engines, tiles have it."""
        return AttentionStat("maps")

    @staticmethod
    def kept() -> AttentionStat:
        """The share of the map's entries that θ keeps, 1 without θ. ``(b, h)``."""
        return AttentionStat("kept")

    @staticmethod
    def keys() -> AttentionStat:
        """The keys that enter attention (after k-norm). ``(b, h, N, d)``."""
        return AttentionStat("keys")

    @staticmethod
    def values() -> AttentionStat:
        """The values. ``(b, h, N, d)``."""
        return AttentionStat("values")


def _checked(aggregate: str) -> str:
    if aggregate not in ("max", "mean"):
        raise ConfigError(f"aggregate must be 'max' or 'mean' over heads, got {shown(aggregate)}.")
    return aggregate


def _prefix_token(query: int | str) -> int | str:
    if query != "cls" and (type(query) is not int or query < 0):
        raise ConfigError(
            f"a row is 'cls' or the number of a prefix token from 0 on, got {shown(query)}."
        )
    return query


_OF_IMAGE_TOKENS = ("diagonal", "column_sum", "row", "logits_row")
# Dimensions of the other statistics that run over tokens, prefix included.
_TOKEN_DIMS = {"map": (1, 2), "maps": (2, 3), "keys": (2,), "values": (2,), "kept": ()}


@dataclass(frozen=True, eq=False)
class AttentionStats:
    """The statistics of one block's attention: ``attention[AttentionStat.diagonal("max")]``."""

    values: Mapping[AttentionStat, Tensor] = field(default_factory=dict)

    def __getitem__(self, stat: AttentionStat) -> Tensor:
        """The value of a statistic.

        Raises:
            PartError: if the part did not declare it in ``requires``, or reads it before the block,
                where no attention has run.
        """
        if stat not in self.values:
            given = ", ".join(str(n) for n in self.values) or "none"
            raise PartError(
                f"{stat} was not computed for this block (computed: {given}). Declare it in the "
                "part's `requires`; with where='before_block' no attention has run yet."
            )
        return self.values[stat]

    def take(self, image: Int[Tensor, "b k"], num_prefix: int) -> AttentionStats:
        """The statistics of some image tokens, and of the prefix if they cover it."""
        first = torch.arange(num_prefix, device=image.device).expand(image.shape[0], -1)
        whole = torch.cat((first, image + num_prefix), dim=1)
        found = {}
        for stat, value in self.values.items():
            places = image if stat.kind in _OF_IMAGE_TOKENS else whole
            for dim in _TOKEN_DIMS.get(stat.kind, (1,)):
                shape = [places.shape[0]] + [1] * (value.dim() - 1)
                shape[dim] = places.shape[1]
                sizes = list(value.shape)
                sizes[dim] = places.shape[1]
                value = value.gather(dim, places.view(shape).expand(sizes))
            found[stat] = value
        return AttentionStats(found)


def mean_keys(attention: AttentionStats) -> Float[Tensor, "b N d"]:
    """The mean of `AttentionStat.keys` over heads, in fp32 or better."""
    keys = attention[AttentionStat.keys()]
    return keys.mean(dim=1, dtype=at_least_fp32(keys.dtype))


def over_heads(per_head: Float[Tensor, "b h ..."], aggregate: str) -> Float[Tensor, "b ..."]:
    """⊕ over heads: ``max`` or ``mean``."""
    return per_head.amax(dim=1) if aggregate == "max" else per_head.mean(dim=1)


def row_index(stat: AttentionStat, state: TokenState) -> int:
    """The query row that a statistic names.

    Raises:
        ConfigError: if the model has no such prefix token.
    """
    if stat.query == "cls":
        if state.cls_index is None:
            raise ConfigError(
                f"{stat} needs the CLS row, but the model has no CLS token. Wrap a model with one; "
                "a part that reads it declares traits = tokenred.Traits(needs_cls=True)."
            )
        return state.cls_index
    row = int(stat.query)
    if row >= state.num_prefix:
        raise ConfigError(f"{stat}: expected a prefix token below {state.num_prefix}, got {row}.")
    return row


class Wanted(NamedTuple):
    """Which entries and sums of a map some statistics are computed from."""

    rows: tuple[int, ...]
    diagonal: bool
    column_sum: bool


def wanted_entries(requires: tuple[AttentionStat, ...], state: TokenState) -> Wanted:
    """What an engine without a map has to compute for these statistics."""
    kinds = {stat.kind for stat in requires}
    return Wanted(
        tuple({row_index(stat, state): None for stat in requires if stat.kind == "row"}),
        "diagonal" in kinds or any(stat.exclude_self for stat in requires),
        "column_sum" in kinds,
    )


def stats_of_entries(
    requires: tuple[AttentionStat, ...],
    state: TokenState,
    *,
    row: Callable[[int], Float[Tensor, "b h n"]],
    diagonal: Callable[[], Float[Tensor, "b h n"]],
    column_sum: Callable[[], Float[Tensor, "b h n"]],
    kept: Callable[[], Float[Tensor, "b h"]],
) -> dict[AttentionStat, Tensor]:
    """The statistics of a map, from the entries and sums that an engine computes.

    Args:
        requires: the statistics; others are ignored.
        state: the tokens.
        row, diagonal, column_sum: ``A_ri``, ``A_ii`` and ``Σ_j A_ji`` of each head, for the image
            tokens i; called at most once, and only if needed.
        kept: the share of entries that θ keeps.

    Source: GTP-ViT (arXiv 2311.03035), Eq. 3 and 4.
    """
    found: dict[AttentionStat, Tensor] = {}
    wanted = wanted_entries(requires, state)
    itself = diagonal() if wanted.diagonal else None
    columns = column_sum() if wanted.column_sum else None
    for stat in requires:
        value = None
        if stat.kind == "kept":
            found[stat] = kept()
        elif stat.kind == "row":
            value = row(row_index(stat, state))
        elif stat.kind == "diagonal":
            value = itself
        elif stat.kind == "column_sum" and columns is not None:
            value = columns - itself if stat.exclude_self and itself is not None else columns
        if value is not None:
            found[stat] = over_heads(value, stat.aggregate)
    return found


def stats_of_map(
    attention: Float[Tensor, "b h N N"],
    requires: tuple[AttentionStat, ...],
    state: TokenState,
    kept: float = 1.0,
) -> dict[AttentionStat, Tensor]:
    """The statistics of a map, by definition; the reference that every engine is tested against.

    Args:
        attention: the map.
        requires: the statistics.
        state: the tokens.
        kept: the share of entries that θ keeps.
    """
    p = state.num_prefix
    found = stats_of_entries(
        requires,
        state,
        row=lambda row: attention[:, :, row, p:],
        diagonal=lambda: torch.diagonal(attention, dim1=-2, dim2=-1)[..., p:],
        column_sum=lambda: attention.sum(dim=-2)[..., p:],
        kept=lambda: attention.new_full(attention.shape[:2], kept),
    )
    for stat in requires:
        if stat.kind == "maps":
            found[stat] = attention
        elif stat.kind == "map":
            found[stat] = over_heads(attention, stat.aggregate)
    return found
