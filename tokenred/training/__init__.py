"""Training: fine-tuning with a strategy, and the recipe that made the bundled weights."""

from tokenred.training.finetune import Finetuned, finetune
from tokenred.training.settings import (
    METHOD_SETTINGS,
    PRESETS,
    Settings,
    method_of,
    preset_of,
    settings_for,
)

__all__ = [
    "METHOD_SETTINGS",
    "PRESETS",
    "Finetuned",
    "Settings",
    "finetune",
    "method_of",
    "preset_of",
    "settings_for",
]
