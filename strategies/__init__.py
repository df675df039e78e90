"""Door to ``tokenred.strategies``: hands on the same objects; the wheel leaves it out."""

from tokenred.strategies import *  # noqa: F403
