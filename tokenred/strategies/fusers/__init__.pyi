# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.fusers.fused_token import FusedToken as FusedToken
from tokenred.strategies.fusers.maximum import Maximum as Maximum
from tokenred.strategies.fusers.mean import Mean as Mean
from tokenred.strategies.fusers.merge import Merge as Merge
from tokenred.strategies.fusers.mlerp import MLERP as MLERP
from tokenred.strategies.fusers.patch_merger import PatchMerger as PatchMerger
from tokenred.strategies.fusers.propagate import Propagate as Propagate
from tokenred.strategies.fusers.prune import Prune as Prune
from tokenred.strategies.fusers.region_means import RegionMeans as RegionMeans
from tokenred.strategies.fusers.similar_mean import SimilarMean as SimilarMean
from tokenred.strategies.fusers.sinkhorn import Sinkhorn as Sinkhorn
from tokenred.strategies.fusers.token_slimming import TokenSlimming as TokenSlimming

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
