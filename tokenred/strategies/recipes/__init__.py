"""Recipes: the published methods, one file each, composed of parts."""

from tokenred.strategies.recipes.ats import ats
from tokenred.strategies.recipes.dynamicvit import dynamicvit
from tokenred.strategies.recipes.evit import evit
from tokenred.strategies.recipes.evo_vit import evo_vit
from tokenred.strategies.recipes.gtp import gtp
from tokenred.strategies.recipes.idlevit import idlevit
from tokenred.strategies.recipes.mstm import mstm
from tokenred.strategies.recipes.random import random
from tokenred.strategies.recipes.tome import tome
from tokenred.strategies.recipes.topk import topk
from tokenred.strategies.recipes.tri_level import tri_level
from tokenred.strategies.recipes.uniform import uniform

__all__ = [
    "ats",
    "dynamicvit",
    "evit",
    "evo_vit",
    "gtp",
    "idlevit",
    "mstm",
    "random",
    "tome",
    "topk",
    "tri_level",
    "uniform",
]
