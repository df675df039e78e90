"""The ordinary route."""

from __future__ import annotations

from tokenred.strategies.base import Route, routes

__all__ = ["TakeAll"]


@routes.register("take_all")
class TakeAll(Route):
    """Every token passes every block."""
