"""Selectors: from scores, or by matching, to the tokens that stay and go."""

from tokenred.strategies.selectors.bipartite import BipartiteMatching
from tokenred.strategies.selectors.top_score import TopScore

__all__ = ["BipartiteMatching", "TopScore"]
