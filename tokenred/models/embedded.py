"""The models that come with the package: small ViTs that need no download.

Both are plain timm ``VisionTransformer``s for 32x32 images in patches of 4 (64 image tokens and
CLS), with 8 blocks, heads of width 32 and 10 classes; fp16 on disk, fp32 in memory. The files'
metadata holds the training settings and the accuracy (``top1``); ``scripts/train_embedded.py``
trains others with the same settings.

``digits``: width 96, 3 heads. Trained from scratch on a CPU on the 1437 images of the bundled
train split (scikit-learn's digits, 8x8 enlarged to 32x32); accuracy on the 360 held-out images. For
demos, tests and experiments that must run anywhere. The task is easy, so small differences between
methods mean little: 56 of 64 tokens can be removed, a few in each block, at the cost of about one
point. Heavy pruning by CLS attention does worse here than at random (though better than by its
inverse), because the kept tokens do not cover the image.

``cifar10_vit``: width 128, 4 heads, 1.6 M parameters. Trained on a CPU on the 50,000 images of
CIFAR-10's train split; accuracy on all 10,000 test images. For experiments on photographs. It is a
weak model: use it to compare methods, not for claims about larger models.
"""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from timm.models.vision_transformer import VisionTransformer

from tokenred.core.errors import UnknownNameError
from tokenred.data.classes import CIFAR10_CLASSES
from tokenred.models.checkpoint_file import read_checkpoint
from tokenred.models.rebuild import read_described

EMBEDDED_MODELS: Final[dict[str, dict[str, Any]]] = {
    "digits": {"architecture": "digits_vit"},
    "cifar10_vit": {"architecture": "cifar10_vit", "label_names": list(CIFAR10_CLASSES)},
}
"""The models by name: the architecture, after which the file is called, and the class names."""


def embedded_model(name: str, pretrained: bool = True) -> VisionTransformer:
    """Build a bundled model, with its weights or random ones, in fp32 and eval mode.

    It maps images (b, 3, 32, 32) to logits (b, 10). Its ``pretrained_cfg`` has the preprocessing
    for ``timm.data.resolve_model_data_config``.

    Raises:
        CheckpointError: if the bundled weights are damaged.
    """
    with _file(name) as path:
        model, record = read_described(path, weights=pretrained)
    model.pretrained_cfg = record | EMBEDDED_MODELS[name]
    return model.float().eval()


def model_card(name: str) -> dict[str, str]:
    """The metadata of bundled weights (``"digits"``, ``"cifar10_vit"``).

    Returns:
        ``config``, ``preprocessing``, ``top1`` (percent), ``data``, ``recipe``, ...

    Raises:
        UnknownNameError: for another name.
        CheckpointError: if the bundled weights are damaged.
    """
    if name not in EMBEDDED_MODELS:
        raise UnknownNameError.of("bundled model", name, EMBEDDED_MODELS)
    with _file(name) as path:
        return read_checkpoint(path)[1]


def _file(name: str) -> AbstractContextManager[Path]:
    return as_file(
        files("tokenred.models") / f"{EMBEDDED_MODELS[name]['architecture']}.safetensors"
    )
