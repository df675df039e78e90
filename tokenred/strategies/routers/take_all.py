"""The default router."""

from __future__ import annotations

from tokenred.strategies.base import Router, routers


@routers.register("take_all")
class TakeAll(Router):
    """Every token passes every block."""
