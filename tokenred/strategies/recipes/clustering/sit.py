"""TokenSlimming."""

from typing import Literal

from tokenred.core.values import Blocks
from tokenred.strategies.fusers.token_slimming import TokenSlimming
from tokenred.strategies.recipes.clustering.sinkhorn import replaced
from tokenred.strategies.schedules.keep_count import Keep
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("sit")
def sit(*, keep: Keep = 0.7, layers: Blocks | Literal["all"] | None = None) -> Strategy:
    """A learned assignment of all tokens to fewer new ones (SiT, as in Haurum et al., ICCVW 2023).

    Args:
        keep: share ρ of the tokens kept after each of `layers`, or counts; see `KeepCount`.
        layers: blocks before which tokens are replaced; None for the quarters of the depth.
    """
    return replaced(TokenSlimming(layers), keep)
