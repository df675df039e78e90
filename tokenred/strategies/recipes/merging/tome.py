"""ToMe."""

from typing import Annotated

from annotated_types import Ge, Le, Predicate

from tokenred.core.values import Count
from tokenred.strategies.schedule import Schedule
from tokenred.strategies.schedules.constant import Constant
from tokenred.strategies.schedules.linear import Linear
from tokenred.strategies.schedules.per_layer import PerLayer
from tokenred.strategies.strategy import Strategy, recipes


def _no_pair(numbers: tuple[int, ...]) -> bool:
    return len(numbers) != 2


_Pair = tuple[Count, Annotated[float, Ge(-1), Le(1)]]
Merges = Count | list[Count] | _Pair | Annotated[tuple[Count, ...], Predicate(_no_pair)]
"""ToMe's ``r``: one number, a list, or ``(r, inflection)``."""


def merges(r: Merges) -> Schedule:
    """The schedule of ToMe's ``r``."""
    if isinstance(r, int):
        return Constant(r)
    if isinstance(r, tuple) and len(r) == 2:
        return Linear(*r)
    return PerLayer(tuple(r))


@recipes.register("tome")
def tome(
    *, r: Merges = 8, proportional_attention: bool = True, reference: bool = False
) -> Strategy:
    """Token merging by bipartite soft matching (ToMe, Bolya et al., ICLR 2023).

    Args:
        r: tokens merged per block; or a list with one number per block, padded with 0; or a pair
            ``(r, inflection)`` with a float second, a linear schedule from −1 (decreasing) to 1.
        proportional_attention: add ``log s`` in the attention; switch it off for MAE models.
        reference: follow the authors' timm patch: average pooling counts a merged token once, not
            once per patch in it.
    """
    return Strategy(
        scorer="BipartiteMatching",
        fuser="merge",
        schedule=merges(r),
        proportional_attention=proportional_attention,
        reference=reference,
    )
