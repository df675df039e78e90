"""The models that come with the package: small ViTs that are ready without any download.

Model card of ``digits``:
    What: a plain timm ``VisionTransformer``: 32x32 images, patch 4 (64 image tokens and CLS),
        width 96, 8 blocks, 3 heads of width 32, 10 classes; fp16 on disk, fp32 in memory.
    Trained on: the 1437 images of the embedded train split (scikit-learn's digits, 8x8 enlarged
        to 32x32), from scratch on a CPU; the metadata has the settings, and ``python
        scripts/train_embedded.py digits`` trains another with them.
    Quality: the file's metadata carries the top-1 on the 360 held-out images (``top1``).
    For: demos, tests and experiments with token reduction that must run anywhere. Its task is
        easy, so small differences between methods mean little: 56 of 64 tokens can go, a few in
        each block, for about one point. Pruning hard by CLS attention does better here than by
        its inverse and worse than at random, since it keeps no spread over the picture.

Model card of ``cifar10_vit``:
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

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any, Final

from timm.models.vision_transformer import VisionTransformer

from tokenred.data.cifar10 import CIFAR10_CLASSES
from tokenred.models.checkpoint_file import read_checkpoint
from tokenred.models.rebuild import read_described

__all__ = ["EMBEDDED_MODELS", "cifar10_card", "cifar10_vit", "digits_card", "digits_vit"]


def _built(name: str, pretrained: bool, more: dict[str, Any]) -> VisionTransformer:
    with as_file(files("tokenred.models") / f"{name}.safetensors") as path:
        model, record = read_described(path, weights=pretrained)
    model.pretrained_cfg = record | {"architecture": name} | more
    return model.float().eval()


def _card(name: str) -> dict[str, str]:
    with as_file(files("tokenred.models") / f"{name}.safetensors") as path:
        return read_checkpoint(path)[1]


def digits_vit(pretrained: bool = True) -> VisionTransformer:
    """Build the digits model.

    Args:
        pretrained: load the embedded weights; otherwise they are random.

    Returns:
        The model in fp32 and eval mode, taking (b, 3, 32, 32) and giving logits (b, 10). Its
        ``pretrained_cfg`` tells ``timm.data.resolve_model_data_config`` the preprocessing.

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    return _built("digits_vit", pretrained, {})


def cifar10_vit(pretrained: bool = True) -> VisionTransformer:
    """Build the CIFAR-10 model, as `digits_vit` builds that of digits."""
    return _built("cifar10_vit", pretrained, {"label_names": list(CIFAR10_CLASSES)})


def digits_card() -> dict[str, str]:
    """What the embedded weights say of themselves.

    Returns:
        The metadata: ``config``, ``preprocessing``, ``top1`` (percent), ``data``, ``recipe``, ...

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    return _card("digits_vit")


def cifar10_card() -> dict[str, str]:
    """What the embedded weights of the CIFAR-10 model say, as `digits_card`."""
    return _card("cifar10_vit")


EMBEDDED_MODELS: Final[dict[str, Callable[[bool], VisionTransformer]]] = {
    "digits": digits_vit,
    "cifar10_vit": cifar10_vit,
}
"""By the names that `load_model` takes; called with whether to load the embedded weights."""
