# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.selectors.bipartite_matching import BipartiteMatching as BipartiteMatching
from tokenred.strategies.selectors.grid_drop import GridDrop as GridDrop
from tokenred.strategies.selectors.inverse_transform import InverseTransform as InverseTransform
from tokenred.strategies.selectors.partnered import Partnered as Partnered
from tokenred.strategies.selectors.predictor import Predictor as Predictor
from tokenred.strategies.selectors.top_score import TopScore as TopScore

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
