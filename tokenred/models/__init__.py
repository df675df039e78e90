"""Models: the embedded ViTs, LV-ViT, timm's models by name, and checkpoints."""

from __future__ import annotations

from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint
from tokenred.models.embedded import cifar10_card, cifar10_vit, digits_card, digits_vit
from tokenred.models.load import load_model
from tokenred.models.lvvit import LVViT, lvvit_m, lvvit_s
from tokenred.models.released import load_released

__all__ = [
    "LVViT",
    "cifar10_card",
    "cifar10_vit",
    "digits_card",
    "digits_vit",
    "load_model",
    "load_released",
    "lvvit_m",
    "lvvit_s",
    "read_checkpoint",
    "save_checkpoint",
]
