# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .frequency import Frequency as Frequency
from .policy_mask import PolicyMask as PolicyMask
from .top_keys import TopKeys as TopKeys

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
