# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .broad_attn import BroadAttn as BroadAttn
from .cls_attn import CLSAttn as CLSAttn
from .cos_sim import CosSim as CosSim
from .diag_attn import DiagAttn as DiagAttn
from .mixed_attn import MixedAttn as MixedAttn
from .random import Random as Random

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
