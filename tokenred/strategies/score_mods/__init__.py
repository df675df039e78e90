"""Score mods: changes to the attention map beyond ``log s`` and θ."""

from tokenred.core.registry import gather

__all__ = gather(__name__)
