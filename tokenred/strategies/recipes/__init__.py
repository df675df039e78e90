"""Recipes: the published methods, one file each, composed of parts."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
