"""The model's own embedding."""

from __future__ import annotations

from tokenred.strategies.base import Embedding, embeddings


@embeddings.register("plain")
class Plain(Embedding):
    """Nothing is added to the model's own embedding."""

    adds = False
