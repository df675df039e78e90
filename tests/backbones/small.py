"""timm's models by name, made small, and what holds for each."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import tokenred as tr

DEPTH = 2
DROPOUT = dict.fromkeys(
    ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"], 0.2
)


def names_of(kind: type[nn.Module]) -> list[str]:
    """All names that timm builds a class of models by."""
    made = {n: timm.model_entrypoint(n).__annotations__.get("return") for n in timm.list_models()}
    return [n for n, c in made.items() if isinstance(c, type) and issubclass(c, kind)]


class Unfilled(TorchFunctionMode):
    """Leaves new weights as they are: they are filled again anyway, and that takes the time."""

    random = (Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, torch.nn.init.trunc_normal_)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.random else func(*args, **(kwargs or {}))


def build(name: str) -> Any:
    """Two blocks, narrow, a few patches, every dropout on."""
    model = _sized(name, 56 if "patch14" in name else 64)
    # Large patches leave too few tokens to choose from.
    return model if model.patch_embed.num_patches >= 16 else _sized(name, 128)


def _sized(name: str, size: int) -> Any:
    arguments = {"depth": DEPTH, "img_size": size, "num_classes": 5, **DROPOUT}
    with Unfilled():
        try:
            return timm.create_model(name, **arguments, embed_dim=48, num_heads=3)
        except AssertionError as error:
            if "num_kv_heads" in str(error):
                groups = {"num_kv_heads": (3, 1)}
                return timm.create_model(name, **arguments, **groups, embed_dim=48, num_heads=3)
            # A stem without a projection sets the width.
            return timm.create_model(name, **arguments)


def images_for(model: Any) -> Tensor:
    """Two images of the model's size."""
    size = model.patch_embed.img_size
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))


def tokens_go(model: Any, images: Tensor) -> None:
    """Tokens removed in every block change the logits, and are as many as asked."""
    patches, prefix = model.patch_embed.num_patches, model.num_prefix_tokens
    count = min(5, (patches - 1) // DEPTH)
    assert count > 0
    strategy = tr.strategy("gtp", P=count, M=min(8, patches - 1))
    with torch.no_grad():
        logits, trace = tr.wrap(model, strategy).run_with_trace(images)
        dense = model(images)
    assert logits.shape == dense.shape
    assert logits.isfinite().all()
    assert not torch.equal(logits, dense)
    assert trace.tokens_per_layer == tuple(patches - count * (i + 1) for i in range(DEPTH))
    assert [x.shape[1] - prefix for x in trace.features] == list(trace.tokens_per_layer)


def methods_run(model: Any, images: Tensor) -> None:
    """Methods that choose, merge, gather and idle run, at the counts they announce."""
    ratio = {"keep_rate": 0.7, "layers": (0, 1)}
    methods = {"tome": {"r": 2}, "topk": ratio, "random": ratio, "evit": ratio}
    if model.cls_token is None:
        del methods["evit"]
    for method, arguments in methods.items():
        reduced = tr.wrap(model, tr.strategy(method, **arguments))
        with torch.no_grad():
            logits, trace = reduced.run_with_trace(images)
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()
        assert trace.tokens_per_layer == tuple(x.tokens_out for x in reduced.cost().layers)
        assert trace.tokens_per_layer[-1] < model.patch_embed.num_patches
