"""Sinkhorn."""

from typing import Literal

from tokenred.core.values import Blocks
from tokenred.strategies.fusers.sinkhorn import Iterations, Sinkhorn, Temperature
from tokenred.strategies.fusers.soft import SoftFuser
from tokenred.strategies.schedules.keep_count import Keep, KeepCount
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("sinkhorn")
def sinkhorn(
    *,
    keep: Keep = 0.7,
    layers: Blocks | Literal["all"] | None = None,
    epsilon: Temperature = 1.0,
    iterations: Iterations = 3,
) -> Strategy:
    """Balanced soft clusters around learned centres (Sinkhorn, as in Haurum et al., ICCVW 2023).

    Args:
        keep: share ρ of the tokens kept after each of `layers`, or counts; see `KeepCount`.
        layers: blocks before which tokens are replaced; None for the quarters of the depth.
        epsilon, iterations: of the assignment, see `tokenred.fusers.Sinkhorn`.
    """
    return replaced(Sinkhorn(layers, epsilon, iterations), keep)


def replaced(fuser: SoftFuser, keep: Keep) -> Strategy:
    """A fuser's new tokens in place of all others, before blocks."""
    schedule = KeepCount(keep, fuser.layers)
    return Strategy(scorer="Slots", fuser=fuser, schedule=schedule, where="before_block")
