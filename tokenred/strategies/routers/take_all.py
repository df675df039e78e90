"""The default router."""

from tokenred.strategies.base import Router, routers


@routers.register("take_all")
class TakeAll(Router):
    """Every token passes every block."""
