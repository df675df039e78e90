# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .fused_token import FusedToken as FusedToken
from .maximum import Maximum as Maximum
from .mean import Mean as Mean
from .merge import Merge as Merge
from .mlerp import MLERP as MLERP
from .patch_merger import PatchMerger as PatchMerger
from .propagate import Propagate as Propagate
from .prune import Prune as Prune
from .region_means import RegionMeans as RegionMeans
from .similar_mean import SimilarMean as SimilarMean
from .sinkhorn import Sinkhorn as Sinkhorn
from .token_slimming import TokenSlimming as TokenSlimming

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
