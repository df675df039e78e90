"""Door to ``tokenred.analysis``: hands on the same objects; the wheel leaves it out."""

from tokenred.analysis import *  # noqa: F403
