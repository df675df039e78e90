"""Routers: which tokens pass a block, and which idle."""

from tokenred.strategies.routers.idle import Idle
from tokenred.strategies.routers.slow_fast import SlowFast
from tokenred.strategies.routers.take_all import TakeAll

__all__ = ["Idle", "SlowFast", "TakeAll"]
