"""Selectors: choose the tokens to keep and remove, by score or by matching."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
