"""The evaluation preprocessing of a model, from images to its input."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

from annotated_types import MaxLen, MinLen
from PIL import Image
from torch import Tensor, nn

from tokenred.core.reading import Words
from tokenred.core.values import Positive, checked

# Of the training pixels, on the scale 0..1; in common use.
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
Mean = Annotated[
    Sequence[float], MinLen(3), MaxLen(3), Words("three numbers, one a colour channel")
]
Std = Annotated[
    Sequence[Positive], MinLen(3), MaxLen(3), Words("three numbers above 0, one a colour channel")
]


@checked
def eval_transform(
    model: nn.Module, *, mean: Mean | None = None, std: Std | None = None, data: str | None = None
) -> Callable[[Image.Image], Tensor]:
    """Create the model's own evaluation preprocessing.

    An image that already has the model's size is not resized if the model uses no crop.

    Args:
        model: its ``pretrained_cfg`` defines the preprocessing, with timm's defaults. The size is
            the model's own ``patch_embed.img_size`` if it has one.
        mean: overrides the model's, one number per channel in 0..1.
        std: overrides the model's, one number per channel.
        data: the dataset's name; with ``"cifar10"``, a model without its own statistics gets
            CIFAR-10's.

    Returns:
        A transform from an RGB image to a tensor (3, height, width).

    Raises:
        ConfigError: if ``mean`` or ``std`` is not three numbers, or a ``std`` is not positive.
    """
    config = data_config(model, data, mean, std)
    from timm.data import create_transform

    return cast("Callable[[Image.Image], Tensor]", create_transform(**config, is_training=False))


def data_config(
    model: nn.Module, data: str | None, mean: Any = None, std: Any = None
) -> dict[str, Any]:
    """The arguments of timm's ``create_transform`` for a model; see `eval_transform`."""
    recorded: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    if data == "cifar10":
        mean = mean or recorded.get("mean") or CIFAR10_MEAN
        std = std or recorded.get("std") or CIFAR10_STD
    given: dict[str, Any] = {"mean": mean, "std": std}
    overrides = {k: v for k, v in given.items() if v is not None}
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None:
        # A model built for another img_size keeps the old one in its pretrained_cfg.
        overrides["input_size"] = (3, *size)
    from timm.data import resolve_model_data_config

    return dict(resolve_model_data_config(model, args=overrides, pretrained_cfg=recorded))
