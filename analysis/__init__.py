"""``tokenred.analysis`` under a short name, in a checkout only: the wheel leaves it out."""

from tokenred.analysis import *  # noqa: F403
