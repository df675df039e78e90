"""``tokenred.graphs`` under a short name, in a checkout only: the wheel leaves it out."""

from tokenred.graphs import *  # noqa: F403
