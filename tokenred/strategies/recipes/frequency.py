"""Frequency-aware reduction."""

from tokenred.core.values import Blocks, Share
from tokenred.strategies.fusers.region_means import RegionMeans, Windows
from tokenred.strategies.schedules.keep_patches import KeepPatches
from tokenred.strategies.score_mods.frequency import Frequency, Omega
from tokenred.strategies.strategy import Strategy, recipes


@recipes.register("frequency")
def frequency(
    *,
    keep: Share = 0.7,
    layers: Blocks | None = None,
    windows: Windows | None = None,
    omega1: Omega = 0.0,
    omega2: Omega = -1.0,
    learned: bool = False,
) -> Strategy:
    """Keep high frequencies, average the rest by region (Lee et al., NeurIPS 2025).

    Args:
        keep: share of the single-patch tokens to keep.
        layers: blocks that reduce; None for the quarters of the depth.
        windows: as for `RegionMeans`; the paper uses ``(2, 2, 1)`` for ViT-S.
        omega1, omega2, learned: as for `Frequency`; by default attention is unchanged, and in the
            paper they are learned.
    """
    mod = Frequency(omega1, omega2, layers, learned)
    return Strategy(
        scorer="MostAttended",
        fuser=RegionMeans(windows, layers),
        schedule=KeepPatches(keep, layers),
        score_mods=(mod,) if learned or (omega1, omega2) != (0.0, -1.0) else (),
    )
