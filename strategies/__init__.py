"""``tokenred.strategies`` under a short name, in a checkout only: the wheel leaves it out."""

from tokenred.strategies import *  # noqa: F403
