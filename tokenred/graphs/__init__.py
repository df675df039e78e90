"""Token graphs: spatial, semantic, mixed, none; normalised, with networkx and scipy views."""

from tokenred.core.registry import gather
from tokenred.graphs.base import GraphBuilder
from tokenred.graphs.graph import Graph

__all__ = ["Graph", "GraphBuilder", *gather(__name__)]
