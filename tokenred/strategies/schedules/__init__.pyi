# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.schedules.budget import Budget as Budget
from tokenred.strategies.schedules.constant import Constant as Constant
from tokenred.strategies.schedules.grid_shrink import GridShrink as GridShrink
from tokenred.strategies.schedules.keep_count import KeepCount as KeepCount
from tokenred.strategies.schedules.keep_patches import KeepPatches as KeepPatches
from tokenred.strategies.schedules.keep_ratio import KeepRatio as KeepRatio
from tokenred.strategies.schedules.linear import Linear as Linear
from tokenred.strategies.schedules.per_layer import PerLayer as PerLayer
from tokenred.strategies.schedules.until_few import UntilFew as UntilFew

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
