"""What a part asks of the attention, so that an engine computes that and nothing else."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tokenred.core.errors import ConfigError

__all__ = ["Aggregate", "Need"]

Aggregate = Literal["max", "mean"]


class Need(NamedTuple):
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
    def diagonal(aggregate: str = "max") -> Need:
        """``A_ii``: what a token keeps of itself. ``(b, n)``."""
        return Need("diagonal", _checked(aggregate))

    @staticmethod
    def received(aggregate: str = "max", exclude_self: bool = True) -> Need:
        """``Σ_j A_ji``: what all tokens, prefix included, take from token i. ``(b, n)``.

        With ``exclude_self`` the token's own entry is left out, head by head.
        """
        return Need("received", _checked(aggregate), exclude_self)

    @staticmethod
    def row(query: int | str = "cls", aggregate: str = "max") -> Need:
        """``A_ri``: the attention of one prefix token. ``(b, n)``."""
        return Need("row", _checked(aggregate), query=query)

    @staticmethod
    def logits_row(query: int | str = "cls", aggregate: str = "mean") -> Need:
        """``q_r·k_i/√d``: the same before bias and softmax. ``(b, n)``."""
        return Need("logits_row", _checked(aggregate), query=query)

    @staticmethod
    def map(aggregate: str = "mean") -> Need:
        """The whole map ``A``, aggregated over heads. ``(b, N, N)``. No fast engine has it."""
        return Need("map", _checked(aggregate))

    @staticmethod
    def maps() -> Need:
        """The whole map of each head. ``(b, h, N, N)``. No fast engine has it."""
        return Need("maps")

    @staticmethod
    def kept() -> Need:
        """The share of the map's entries that θ left, 1 where there is no θ. ``(b, h)``."""
        return Need("kept")

    @staticmethod
    def keys() -> Need:
        """The keys that enter attention (after k-norm). ``(b, h, N, d)``."""
        return Need("keys")

    @staticmethod
    def values() -> Need:
        """The values. ``(b, h, N, d)``."""
        return Need("values")


def _checked(aggregate: str) -> str:
    if aggregate not in ("max", "mean"):
        raise ConfigError(f"aggregate must be 'max' or 'mean' over heads, got {aggregate!r}.")
    return aggregate
