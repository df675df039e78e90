"""The embedded CIFAR-10 model: small, and of a task where differences between methods show.

Model card:
    What: a plain timm ``VisionTransformer``: 32x32 images, patch 4 (64 image tokens and CLS),
        width 128, 8 blocks, 4 heads of width 32, 10 classes, 1.6 M parameters; fp16 on disk, fp32
        in memory.
    Trained on: the 50,000 images of CIFAR-10's train split, on a CPU; the metadata has the
        settings, and the digest of the weights it began from. ``python scripts/train_embedded.py
        patch4`` trains another with them.
    Quality: the metadata carries the top-1 on all 10,000 test images (``top1``).
    For: experiments with token reduction on photographs. It is modestly trained: compare methods
        on it, claim nothing about models of size.
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.models.checkpoint_file import embedded_file, read_checkpoint
from tokenred.models.described import read_described

__all__ = ["cifar10_card", "cifar10_vit"]

_WEIGHTS = "cifar10_vit.safetensors"


def cifar10_vit(pretrained: bool = True) -> VisionTransformer:
    """Build the CIFAR-10 model.

    Args:
        pretrained: load the embedded weights; otherwise they are random.

    Returns:
        The model in fp32 and eval mode, taking (b, 3, 32, 32) and giving logits (b, 10). Its
        ``pretrained_cfg`` tells ``timm.data.resolve_model_data_config`` the preprocessing.

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    with embedded_file(_WEIGHTS) as path:
        model, record = read_described(path, weights=pretrained)
    model.pretrained_cfg = record | {
        "architecture": "cifar10_vit",
        "label_names": list(CIFAR10_CLASSES),
    }
    return model.float().eval()


def cifar10_card() -> dict[str, str]:
    """Return what the embedded weights say of themselves.

    Returns:
        The metadata: ``config``, ``preprocessing``, ``top1`` (percent), ``data``, ``recipe``, ...

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    with embedded_file(_WEIGHTS) as path:
        return read_checkpoint(path)[1]
