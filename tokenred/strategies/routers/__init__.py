"""Routers: which tokens pass a block, and which idle."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
