# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from .ats import ats as ats
from .clustering.atc import atc as atc
from .clustering.dpcknn import dpcknn as dpcknn
from .clustering.kmedoids import kmedoids as kmedoids
from .clustering.patchmerger import patchmerger as patchmerger
from .clustering.sinkhorn import sinkhorn as sinkhorn
from .clustering.sit import sit as sit
from .dynamicvit import dynamicvit as dynamicvit
from .evit import evit as evit
from .evo_vit import evo_vit as evo_vit
from .frequency import frequency as frequency
from .gtp import gtp as gtp
from .idlevit import idlevit as idlevit
from .merging.adamerge import adamerge as adamerge
from .merging.algm import algm as algm
from .merging.cubistmerge import cubistmerge as cubistmerge
from .merging.diffrate import diffrate as diffrate
from .merging.dtome import dtome as dtome
from .merging.mctf import mctf as mctf
from .merging.mstm import mstm as mstm
from .merging.pitome import pitome as pitome
from .merging.tofu import tofu as tofu
from .merging.tome import tome as tome
from .merging.tomecis import tomecis as tomecis
from .random import random as random
from .topk import topk as topk
from .tri_level import tri_level as tri_level
from .uniform import uniform as uniform

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
