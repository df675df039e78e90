# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.selectors.density_peaks import DensityPeaks as DensityPeaks
from tokenred.strategies.selectors.grid_drop import GridDrop as GridDrop
from tokenred.strategies.selectors.importance_order import ImportanceOrder as ImportanceOrder
from tokenred.strategies.selectors.inverse_transform import InverseTransform as InverseTransform
from tokenred.strategies.selectors.matching.agglomerative import Agglomerative as Agglomerative
from tokenred.strategies.selectors.matching.batch_matching import BatchMatching as BatchMatching
from tokenred.strategies.selectors.matching.bipartite_matching import (
    BipartiteMatching as BipartiteMatching,
)
from tokenred.strategies.selectors.matching.energy_matching import EnergyMatching as EnergyMatching
from tokenred.strategies.selectors.matching.grid_matching import GridMatching as GridMatching
from tokenred.strategies.selectors.matching.local_global import LocalGlobal as LocalGlobal
from tokenred.strategies.selectors.matching.multi_criteria import MultiCriteria as MultiCriteria
from tokenred.strategies.selectors.matching.salience_matching import (
    SalienceMatching as SalienceMatching,
)
from tokenred.strategies.selectors.matching.threshold_matching import (
    ThresholdMatching as ThresholdMatching,
)
from tokenred.strategies.selectors.medoids import Medoids as Medoids
from tokenred.strategies.selectors.most_attended import MostAttended as MostAttended
from tokenred.strategies.selectors.partnered import Partnered as Partnered
from tokenred.strategies.selectors.predictor import Predictor as Predictor
from tokenred.strategies.selectors.slots import Slots as Slots
from tokenred.strategies.selectors.top_score import TopScore as TopScore

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
