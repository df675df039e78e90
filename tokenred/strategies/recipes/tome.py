"""ToMe."""

from __future__ import annotations

from collections.abc import Sequence

from tokenred.core.errors import ConfigError
from tokenred.core.plan import Strategy, recipes
from tokenred.strategies.schedules import Constant, Linear, PerLayer, Schedule

__all__ = ["tome"]


@recipes.register("tome")
def tome(
    *,
    r: int | Sequence[float] = 8,
    proportional_attention: bool = True,
    reference: bool = False,
) -> Strategy:
    """Token merging by bipartite soft matching (ToMe, Bolya et al., ICLR 2023).

    Args:
        r: tokens merged in every block; or a list, one a block, padded with 0; or a pair
            ``(r, inflection)`` with a float second, a linear schedule from −1 (falling) to 1.
        proportional_attention: ``log s`` in the attention; off for MAE models.
        reference: as the authors' patch of timm: average pooling counts a merged token once, not
            once for each patch in it.
    """
    schedule: Schedule
    if isinstance(r, int):
        schedule = Constant(r)
    elif len(r) == 2 and (isinstance(r, tuple) or isinstance(r[1], float)):
        schedule = Linear(_whole(r[0]), r[1])
    else:
        schedule = PerLayer(tuple(_whole(x) for x in r))
    return Strategy(
        scorer="BipartiteMatching",
        fuser="merge",
        schedule=schedule,
        proportional_attention=proportional_attention,
        reference=reference,
    )


def _whole(value: float) -> int:
    if int(value) != value:
        raise ConfigError(f"tome: r counts tokens, so whole numbers are expected, got {value!r}.")
    return int(value)
