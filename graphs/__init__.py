"""Door to ``tokenred.graphs``: hands on the same objects; the wheel leaves it out."""

from tokenred.graphs import *  # noqa: F403
