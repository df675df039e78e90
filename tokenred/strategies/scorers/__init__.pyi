# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.scorers.broad_attn import BroadAttn as BroadAttn
from tokenred.strategies.scorers.cls_attn import CLSAttn as CLSAttn
from tokenred.strategies.scorers.cos_sim import CosSim as CosSim
from tokenred.strategies.scorers.diag_attn import DiagAttn as DiagAttn
from tokenred.strategies.scorers.mixed_attn import MixedAttn as MixedAttn
from tokenred.strategies.scorers.random import Random as Random

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
