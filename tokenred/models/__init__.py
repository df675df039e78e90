"""Models: the embedded digits ViT, LV-ViT, timm's by name, self-describing checkpoints."""

from __future__ import annotations

from tokenred.models.checkpoint import load_model
from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint
from tokenred.models.digits_vit import digits_card, digits_vit
from tokenred.models.lvvit import LVViT, lvvit_m, lvvit_s

__all__ = [
    "LVViT",
    "digits_card",
    "digits_vit",
    "load_model",
    "lvvit_m",
    "lvvit_s",
    "read_checkpoint",
    "save_checkpoint",
]
