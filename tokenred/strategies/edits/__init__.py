"""Edits of the attention map: what methods do to it beyond ``log s`` and θ."""

from tokenred.strategies.edits.policy_mask import PolicyMask
from tokenred.strategies.edits.top_keys import TopKeys

__all__ = ["PolicyMask", "TopKeys"]
