# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .budget import Budget as Budget
from .constant import Constant as Constant
from .grid_shrink import GridShrink as GridShrink
from .keep_count import KeepCount as KeepCount
from .keep_patches import KeepPatches as KeepPatches
from .keep_ratio import KeepRatio as KeepRatio
from .linear import Linear as Linear
from .per_layer import PerLayer as PerLayer
from .until_few import UntilFew as UntilFew

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
