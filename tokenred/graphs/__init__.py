"""Token graphs: spatial, semantic, mixed, none; normalised, with networkx and scipy views."""

from tokenred.graphs.base import GraphBuilder, graph_builders
from tokenred.graphs.graph import Graph
from tokenred.graphs.mixed import Mixed
from tokenred.graphs.none import NoGraph
from tokenred.graphs.semantic import Semantic
from tokenred.graphs.spatial import Spatial

__all__ = ["Graph", "GraphBuilder", "Mixed", "NoGraph", "Semantic", "Spatial", "graph_builders"]
