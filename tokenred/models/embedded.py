"""The models that come with the package: small ViTs that need no download.

Both are plain timm ``VisionTransformer``s for 32x32 images in patches of 4 (64 image tokens and
CLS), with 8 blocks, heads of width 32 and 10 classes; fp16 on disk, fp32 in memory. The files'
metadata holds the training settings and the accuracy (``top1``); ``scripts/train_embedded.py``
trains others with the same settings.

``digits``: width 96, 3 heads. Trained from scratch on a CPU on the 1437 images of the embedded
train split (scikit-learn's digits, 8x8 enlarged to 32x32); accuracy on the 360 held-out images. For
demos, tests and experiments that must run anywhere. The task is easy, so small differences between
methods mean little: 56 of 64 tokens can be removed, a few in each block, at the cost of about one
point. Heavy pruning by CLS attention does worse here than at random (though better than by its
inverse), because the kept tokens do not cover the image.

``cifar10_vit``: width 128, 4 heads, 1.6 M parameters. Trained on a CPU on the 50,000 images of
CIFAR-10's train split; accuracy on all 10,000 test images. For experiments on photographs. It is a
weak model: use it to compare methods, not for claims about larger models.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any, Final

from timm.models.vision_transformer import VisionTransformer

from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models.checkpoint_file import read_checkpoint
from tokenred.models.rebuild import read_described


def digits_vit(pretrained: bool = True) -> VisionTransformer:
    """Build the digits model.

    Args:
        pretrained: load the embedded weights; otherwise they are random.

    Returns:
        The model in fp32 and eval mode, from images (b, 3, 32, 32) to logits (b, 10). Its
        ``pretrained_cfg`` has the preprocessing for ``timm.data.resolve_model_data_config``.

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    return _build("digits_vit", pretrained)


def cifar10_vit(pretrained: bool = True) -> VisionTransformer:
    """Build the CIFAR-10 model; see `digits_vit`."""
    return _build("cifar10_vit", pretrained, label_names=list(CIFAR10_CLASSES))


def digits_card() -> dict[str, str]:
    """The metadata of the embedded weights.

    Returns:
        ``config``, ``preprocessing``, ``top1`` (percent), ``data``, ``recipe``, ...

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    return _card("digits_vit")


def cifar10_card() -> dict[str, str]:
    """The metadata of the embedded weights of the CIFAR-10 model; see `digits_card`."""
    return _card("cifar10_vit")


def _build(name: str, pretrained: bool, **more: Any) -> VisionTransformer:
    with as_file(files("tokenred.models") / f"{name}.safetensors") as path:
        model, record = read_described(path, weights=pretrained)
    model.pretrained_cfg = record | {"architecture": name} | more
    return model.float().eval()


def _card(name: str) -> dict[str, str]:
    with as_file(files("tokenred.models") / f"{name}.safetensors") as path:
        return read_checkpoint(path)[1]


EMBEDDED_MODELS: Final[dict[str, Callable[[bool], VisionTransformer]]] = {
    "digits": digits_vit,
    "cifar10_vit": cifar10_vit,
}
"""Builders by name; their argument says whether to load the embedded weights."""
