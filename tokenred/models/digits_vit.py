"""The embedded model: a small ViT that reads handwritten digits, ready without any download.

Model card:
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
"""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from tokenred.models.checkpoint_file import embedded_file, read_checkpoint
from tokenred.models.digits_config import DIGITS_CONFIG, DIGITS_PREPROCESSING, DIGITS_WEIGHTS
from tokenred.models.fit import load_strictly

__all__ = ["digits_card", "digits_vit"]


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
    model = VisionTransformer(**DIGITS_CONFIG)
    if pretrained:
        with embedded_file(DIGITS_WEIGHTS) as path:
            state, _ = read_checkpoint(path)
        load_strictly(model, state, DIGITS_WEIGHTS)
    model.pretrained_cfg = {
        "architecture": "digits_vit",
        "num_classes": DIGITS_CONFIG["num_classes"],
        "fixed_input_size": True,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "crop_mode": "center",
        **{k: tuple(v) if isinstance(v, list) else v for k, v in DIGITS_PREPROCESSING.items()},
    }
    return model.eval()


def digits_card() -> dict[str, str]:
    """Return what the embedded weights say of themselves.

    Returns:
        The metadata: ``config``, ``preprocessing``, ``top1`` (percent), ``data``, ``recipe``, ...

    Raises:
        CheckpointError: if the embedded weights are damaged.
    """
    with embedded_file(DIGITS_WEIGHTS) as path:
        return read_checkpoint(path)[1]
