"""Schedules: how many tokens each block removes."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
