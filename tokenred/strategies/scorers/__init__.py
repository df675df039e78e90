"""Scorers: which image tokens matter."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
