# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.graphs.base import GraphBuilder as GraphBuilder
from tokenred.graphs.graph import Graph as Graph
from tokenred.graphs.mixed import Mixed as Mixed
from tokenred.graphs.none import NoGraph as NoGraph
from tokenred.graphs.semantic import Semantic as Semantic
from tokenred.graphs.spatial import Spatial as Spatial

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
