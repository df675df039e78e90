"""Edits of the attention map: what methods do to it beyond ``log s`` and θ."""

from tokenred.strategies.score_mods.policy_mask import PolicyMask
from tokenred.strategies.score_mods.top_keys import TopKeys

__all__ = ["PolicyMask", "TopKeys"]
