"""Schedules: how many tokens go in each block."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
