# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.score_mods.frequency import Frequency as Frequency
from tokenred.strategies.score_mods.policy_mask import PolicyMask as PolicyMask
from tokenred.strategies.score_mods.top_keys import TopKeys as TopKeys

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
