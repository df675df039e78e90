"""Models of every form, and images for them."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokenred as tr
from tokenred.models.lvvit import LVViT

SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 4, "num_classes": 5}
SMALL = {"img_size": 32, "patch_size": 8} | SIZES
FORMS: dict[str, Callable[[], nn.Module]] = {
    "cls": lambda: VisionTransformer(**SMALL),
    "registers": lambda: VisionTransformer(**SMALL, reg_tokens=2, init_values=0.3, qk_norm=True),
    "no cls": lambda: VisionTransformer(**SMALL, class_token=False, global_pool="avg"),
    "mean, cls beside": lambda: VisionTransformer(**SMALL, global_pool="avg"),
    "attention": lambda: VisionTransformer(**SMALL, class_token=False, global_pool="map"),
    "maximum": lambda: VisionTransformer(**SMALL, global_pool="max"),
    "distilled": lambda: VisionTransformerDistilled(**SMALL),
    "lvvit": lambda: LVViT(img_size=64, **SIZES),
}
WITH_CLS = tuple(form for form in FORMS if form not in ("no cls", "attention"))


def model(form: str = "cls") -> nn.Module:
    """A model in double precision, in eval mode, with weights with which tokens differ."""
    torch.manual_seed(0)
    made = FORMS[form]()
    for p in made.parameters():
        nn.init.normal_(p, std=0.2 if p.ndim > 1 else 0.5)
    return made.double().eval()


def images(form: str = "cls", b: int = 3, seed: int = 1) -> Tensor:
    side = 64 if form == "lvvit" else 32
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, 3, side, side, generator=generator, dtype=torch.float64)


def wrapped(strategy: str | tr.Strategy, form: str = "cls") -> tr.ReducedViT:
    """A recipe on a model, its own weights, if it has some, drawn at random."""
    torch.manual_seed(0)
    reduced = tr.wrap(model(form), strategy)
    for p in reduced.parts.parameters() if hasattr(reduced, "parts") else ():
        nn.init.normal_(p, std=0.2)
    return reduced


def in_training(reduced: tr.ReducedViT) -> tr.ReducedViT:
    """In training, but for what normalises over the batch."""
    reduced.train()
    for module in reduced.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return reduced


def check_a_batch_is_its_images(strategy: str | tr.Strategy, form: str = "cls") -> None:
    reduced, batch = wrapped(strategy, form), images(form, b=4)
    with torch.no_grad():
        alone = torch.cat([reduced(image[None]) for image in batch])
        torch.testing.assert_close(reduced(batch), alone, rtol=0, atol=1e-12)
