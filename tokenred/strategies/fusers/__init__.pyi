# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.fusers.fused_token import FusedToken as FusedToken
from tokenred.strategies.fusers.merge import Merge as Merge
from tokenred.strategies.fusers.propagate import Propagate as Propagate
from tokenred.strategies.fusers.prune import Prune as Prune

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
