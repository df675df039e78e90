# Written by scripts/part_versions.py.
from collections.abc import Callable
from typing import TypeVar

from tokenred.strategies.recipes.adamerge import adamerge as adamerge
from tokenred.strategies.recipes.algm import algm as algm
from tokenred.strategies.recipes.atc import atc as atc
from tokenred.strategies.recipes.ats import ats as ats
from tokenred.strategies.recipes.cubistmerge import cubistmerge as cubistmerge
from tokenred.strategies.recipes.diffrate import diffrate as diffrate
from tokenred.strategies.recipes.dpcknn import dpcknn as dpcknn
from tokenred.strategies.recipes.dtome import dtome as dtome
from tokenred.strategies.recipes.dynamicvit import dynamicvit as dynamicvit
from tokenred.strategies.recipes.evit import evit as evit
from tokenred.strategies.recipes.evo_vit import evo_vit as evo_vit
from tokenred.strategies.recipes.frequency import frequency as frequency
from tokenred.strategies.recipes.gtp import gtp as gtp
from tokenred.strategies.recipes.idlevit import idlevit as idlevit
from tokenred.strategies.recipes.kmedoids import kmedoids as kmedoids
from tokenred.strategies.recipes.mctf import mctf as mctf
from tokenred.strategies.recipes.mstm import mstm as mstm
from tokenred.strategies.recipes.patchmerger import patchmerger as patchmerger
from tokenred.strategies.recipes.pitome import pitome as pitome
from tokenred.strategies.recipes.random import random as random
from tokenred.strategies.recipes.sinkhorn import sinkhorn as sinkhorn
from tokenred.strategies.recipes.sit import sit as sit
from tokenred.strategies.recipes.tofu import tofu as tofu
from tokenred.strategies.recipes.tome import tome as tome
from tokenred.strategies.recipes.tomecis import tomecis as tomecis
from tokenred.strategies.recipes.topk import topk as topk
from tokenred.strategies.recipes.tri_level import tri_level as tri_level
from tokenred.strategies.recipes.uniform import uniform as uniform

_C = TypeVar("_C", bound=Callable[..., object])

def register(name: str, *, overwrite: bool = ...) -> Callable[[_C], _C]: ...
def names() -> list[str]: ...
