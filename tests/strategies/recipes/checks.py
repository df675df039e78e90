"""Models of every form, and what every recipe has to do on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
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
    "maximum": lambda: VisionTransformer(**SMALL, global_pool="max"),
    "distilled": lambda: VisionTransformerDistilled(**SMALL),
    "lvvit": lambda: LVViT(img_size=64, **SIZES),
}
WITH_CLS = tuple(form for form in FORMS if form != "no cls")


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


def check_a_batch_is_its_images(strategy: str | tr.Strategy, form: str) -> None:
    reduced, batch = wrapped(strategy, form), images(form, b=4)
    with torch.no_grad():
        alone = torch.cat([reduced(image[None]) for image in batch])
        torch.testing.assert_close(reduced(batch), alone, rtol=0, atol=1e-10)


def check_trace(strategy: str | tr.Strategy, form: str) -> tr.Trace:
    """The logits are the same, and features come back to the whole grid."""
    reduced, batch = wrapped(strategy, form), images(form)
    with torch.no_grad():
        logits, trace = reduced.run_with_trace(batch)
        torch.testing.assert_close(logits, reduced(batch))
    owners, places = trace.owners(), trace.index
    assert owners.shape == (3, 16)
    for image in range(3):
        living = places[image][places[image] >= 0]
        assert len(living.unique()) == len(living) == trace.alive_per_layer[-1][image]
        # Each living token owns its own patch.
        own = owners[image][living]
        assert torch.equal(places[image][own], living)
    for fill in ("last", "nearest", "zero"):
        full = trace.unreduce(trace.features[-1], fill=fill)
        assert full.shape == (3, 16, 32)
        assert full.isfinite().all()
        kept = full[owners >= 0]
        assert (kept.abs().sum(dim=-1) > 0).all()
    middle = reduced.forward_intermediates(batch, indices=[2], intermediates_only=True)
    assert middle[0].shape == (3, 32, 4, 4)
    return trace


def check_training(strategy: str | tr.Strategy, form: str) -> None:
    """Forward and backward, with checkpointed blocks too, in several types."""
    reduced = wrapped(strategy, form).train()
    found = []
    for checkpointed in (False, True):
        reduced.set_grad_checkpointing(checkpointed)
        reduced.zero_grad()
        logits, _ = reduced.forward_train(images(form))
        logits.square().sum().backward()
        found.append(
            {n: p.grad.clone() for n, p in reduced.named_parameters() if p.grad is not None}
        )
    assert all(grad.isfinite().all() for grad in found[0].values())
    assert {"blocks.0.attn.qkv.weight", "blocks.3.mlp.fc2.weight"} <= found[0].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, msg=name)
    low = copy.deepcopy(reduced).eval().bfloat16()
    assert low(images(form).bfloat16()).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert reduced.float()(images(form).float()).isfinite().all()


def check_files(strategy: str | tr.Strategy, folder: Path) -> None:
    """Saved and loaded, as a model and as a TOML file."""
    reduced, batch = wrapped(strategy), images()
    loaded = tr.load(tr.save(reduced, folder / "m.safetensors"))
    assert loaded.strategy == reduced.strategy
    assert hash(loaded.strategy) == hash(reduced.strategy)
    assert torch.equal(loaded(batch), reduced(batch))
    assert tr.Strategy.from_toml(reduced.strategy.to_toml()) == reduced.strategy
