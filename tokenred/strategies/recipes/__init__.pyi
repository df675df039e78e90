# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.recipes.ats import ats as ats
from tokenred.strategies.recipes.clustering.atc import atc as atc
from tokenred.strategies.recipes.clustering.dpcknn import dpcknn as dpcknn
from tokenred.strategies.recipes.clustering.kmedoids import kmedoids as kmedoids
from tokenred.strategies.recipes.clustering.patchmerger import patchmerger as patchmerger
from tokenred.strategies.recipes.clustering.sinkhorn import sinkhorn as sinkhorn
from tokenred.strategies.recipes.clustering.sit import sit as sit
from tokenred.strategies.recipes.dynamicvit import dynamicvit as dynamicvit
from tokenred.strategies.recipes.evit import evit as evit
from tokenred.strategies.recipes.evo_vit import evo_vit as evo_vit
from tokenred.strategies.recipes.frequency import frequency as frequency
from tokenred.strategies.recipes.gtp import gtp as gtp
from tokenred.strategies.recipes.idlevit import idlevit as idlevit
from tokenred.strategies.recipes.merging.adamerge import adamerge as adamerge
from tokenred.strategies.recipes.merging.algm import algm as algm
from tokenred.strategies.recipes.merging.cubistmerge import cubistmerge as cubistmerge
from tokenred.strategies.recipes.merging.diffrate import diffrate as diffrate
from tokenred.strategies.recipes.merging.dtome import dtome as dtome
from tokenred.strategies.recipes.merging.mctf import mctf as mctf
from tokenred.strategies.recipes.merging.mstm import mstm as mstm
from tokenred.strategies.recipes.merging.pitome import pitome as pitome
from tokenred.strategies.recipes.merging.tofu import tofu as tofu
from tokenred.strategies.recipes.merging.tome import tome as tome
from tokenred.strategies.recipes.merging.tomecis import tomecis as tomecis
from tokenred.strategies.recipes.random import random as random
from tokenred.strategies.recipes.topk import topk as topk
from tokenred.strategies.recipes.tri_level import tri_level as tri_level
from tokenred.strategies.recipes.uniform import uniform as uniform

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
