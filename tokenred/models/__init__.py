"""Models: the bundled ViTs, LV-ViT, timm's models by name, and checkpoints."""

from tokenred.models.checkpoint_file import read_checkpoint, save_checkpoint
from tokenred.models.embedded import model_card
from tokenred.models.load import load_model, load_released
from tokenred.models.lvvit import LVViT, lvvit_m, lvvit_s

__all__ = [
    "LVViT",
    "load_model",
    "load_released",
    "lvvit_m",
    "lvvit_s",
    "model_card",
    "read_checkpoint",
    "save_checkpoint",
]
