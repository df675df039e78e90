# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .density_peaks import DensityPeaks as DensityPeaks
from .grid_drop import GridDrop as GridDrop
from .importance_order import ImportanceOrder as ImportanceOrder
from .inverse_transform import InverseTransform as InverseTransform
from .matching.agglomerative import Agglomerative as Agglomerative
from .matching.batch_matching import BatchMatching as BatchMatching
from .matching.bipartite_matching import BipartiteMatching as BipartiteMatching
from .matching.energy_matching import EnergyMatching as EnergyMatching
from .matching.grid_matching import GridMatching as GridMatching
from .matching.local_global import LocalGlobal as LocalGlobal
from .matching.multi_criteria import MultiCriteria as MultiCriteria
from .matching.salience_matching import SalienceMatching as SalienceMatching
from .matching.threshold_matching import ThresholdMatching as ThresholdMatching
from .medoids import Medoids as Medoids
from .most_attended import MostAttended as MostAttended
from .partnered import Partnered as Partnered
from .predictor import Predictor as Predictor
from .slots import Slots as Slots
from .top_score import TopScore as TopScore

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
