"""Fusers: what happens to the removed tokens."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
