"""Selectors: from scores, or by matching, to the tokens that stay and go."""

from tokenred.strategies.selectors.bipartite_matching import BipartiteMatching
from tokenred.strategies.selectors.grid_drop import GridDrop
from tokenred.strategies.selectors.inverse_transform import InverseTransform
from tokenred.strategies.selectors.partnered import Partnered
from tokenred.strategies.selectors.predictor import Predictor
from tokenred.strategies.selectors.top_score import TopScore

__all__ = [
    "BipartiteMatching",
    "GridDrop",
    "InverseTransform",
    "Partnered",
    "Predictor",
    "TopScore",
]
