"""Fusers: what becomes of the tokens that go."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
