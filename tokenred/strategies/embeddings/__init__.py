"""Embeddings: terms added to the tokens before the first block."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
