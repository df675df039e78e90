# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .multi_scale import MultiScale as MultiScale
from .plain import Plain as Plain

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
