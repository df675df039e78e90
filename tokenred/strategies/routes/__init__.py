"""Routes: which tokens pass a block, and which idle."""

from tokenred.strategies.routes.idle import Idle
from tokenred.strategies.routes.slow_fast import SlowFast
from tokenred.strategies.routes.take_all import TakeAll

__all__ = ["Idle", "SlowFast", "TakeAll"]
