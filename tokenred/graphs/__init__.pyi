# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .base import GraphBuilder as GraphBuilder
from .graph import Graph as Graph
from .mixed import Mixed as Mixed
from .none import NoGraph as NoGraph
from .semantic import Semantic as Semantic
from .spatial import Spatial as Spatial

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
