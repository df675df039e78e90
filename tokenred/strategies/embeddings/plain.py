"""The model's own embedding."""

from tokenred.strategies.base import Embedding, embeddings


@embeddings.register("plain")
class Plain(Embedding):
    """Nothing is added to the model's own embedding."""

    adds = False
