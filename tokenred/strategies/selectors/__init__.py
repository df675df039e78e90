"""Selectors: from scores, or by matching, to the tokens that stay and go."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
