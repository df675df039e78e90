"""Recipes: the published methods, one file each, composed of parts."""

from tokenred.strategies.recipes.evit import evit
from tokenred.strategies.recipes.gtp import gtp
from tokenred.strategies.recipes.idlevit import idlevit
from tokenred.strategies.recipes.random import random
from tokenred.strategies.recipes.tome import tome
from tokenred.strategies.recipes.topk import topk

__all__ = ["evit", "gtp", "idlevit", "random", "tome", "topk"]
