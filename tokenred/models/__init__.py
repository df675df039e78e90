"""Models: the embedded digits ViT, timm's by name, and checkpoints that describe themselves."""

from __future__ import annotations

from tokenred.models.checkpoint import load_model
from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint
from tokenred.models.digits_vit import digits_card, digits_vit

__all__ = ["digits_card", "digits_vit", "load_model", "read_checkpoint", "save_checkpoint"]
