# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .idle import Idle as Idle
from .slow_fast import SlowFast as SlowFast
from .take_all import TakeAll as TakeAll

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
