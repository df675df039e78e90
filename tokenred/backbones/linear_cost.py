"""The cost of layers: of linear ones from the shapes of their weights, whatever their class."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.core.errors import BackboneError

# The names that libraries use for the widths of a layer whose weight may be packed.
_WIDTHS = (("in_features", "out_features"), ("infeatures", "outfeatures"))


def linear_macs(module: nn.Module, name: str = "") -> int:
    """Multiply-accumulates of a module's linear layers, for one token; ``name`` is for messages.

    Counts layers of any class that have two widths or a weight of two dimensions (quantised ones
    too), 1×1 convolutions, and LoRA adapters, whether child layers or matrices that fit the widths
    of their layer.

    Raises:
        BackboneError: for a layer whose weights cannot be read in any of these ways.
    """
    children = {n: linear_macs(m, f"{name}.{n}".lstrip(".")) for n, m in module.named_children()}
    total = sum(children.values())
    widths, own = _widths(module), _matrices(module)
    main = own.pop("weight", None)
    if widths is not None and (main is not None or not total):
        total += widths[0] * widths[1]
    elif main is not None:
        total += math.prod(main)
        widths = main[0], main[1]
    elif not children and any(t.ndim > 1 for t in module.parameters(recurse=False)) and not own:
        raise BackboneError(
            f"{name or 'a layer'} ({type(module).__name__}) has weights that are not a matrix, so "
            "its multiply-accumulates are unknown. Give it in_features and out_features."
        )
    if widths is None:
        # A wrapper has the widths of the one layer inside.
        inside = [_widths(m) for n, m in module.named_children() if children[n]]
        widths = inside[0] if len(inside) == 1 else None
    if widths is not None:
        total += sum(math.prod(shape) for shape in own.values() if set(shape) & set(widths))
    return total


def _widths(module: Any) -> tuple[int, int] | None:
    for names in _WIDTHS:
        into, out = (getattr(module, name, None) for name in names)
        if isinstance(into, int) and isinstance(out, int):
            return into, out
    return None


def _matrices(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's own matrices, including 1×1 kernels."""
    found: dict[str, Any] = dict(module.named_parameters(recurse=False))
    weight = getattr(module, "weight", None)
    if not module._modules or "weight" in module._buffers:
        # A wrapper's property returns the weight of the layer inside, which is counted there.
        found["weight"] = (
            weight() if callable(weight) and not isinstance(weight, Tensor) else weight
        )
    shapes = {n: tuple(t.shape) for n, t in found.items() if isinstance(t, Tensor)}
    return {n: s[:2] for n, s in shapes.items() if len(s) >= 2 and math.prod(s[2:]) == 1}


def measured_macs(module: nn.Module, example: Tensor) -> float:
    """Multiply-accumulates of a forward, counted by PyTorch, for stems without a closed form."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    training = module.training
    counter = FlopCounterMode(display=False)
    try:
        module.eval()
        with torch.no_grad(), counter:
            module(example)
    finally:
        module.train(training)
    return counter.get_total_flops() / 2
