"""Trace a model into a graph of PyTorch's own operators, with any batch size."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.attention import Engine
from tokenred.core.errors import ExportError, InputError, PartError, TokenredError, shown
from tokenred.reduced.model import ReducedViT

OPEN = "batch"
"""The name of the open dimension."""
# Differs from the batch sizes of the check, which then notices a fixed size in the graph.
_EXAMPLES = 2


@dataclass(frozen=True, eq=False)
class Traced:
    """A model as a graph, with an example of its input and output."""

    program: ExportedProgram
    model: nn.Module
    images: Tensor
    logits: Tensor
    dynamic: bool


def check_model(model: nn.Module) -> nn.Module:
    """The model, without torch.compile's wrapper; models that cannot be a graph are refused."""
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise PartError(f"export takes a model, got {type(model).__name__}.")
    if model.training:
        raise ExportError(
            f"expected {_name(model)} in eval mode, for a graph without dropout, got one in "
            "training mode. Call model.eval()."
        )
    if isinstance(model, ReducedViT) and is_adaptive(model):
        raise _adaptive(model)
    if next(model.parameters(), None) is None:
        raise ExportError(f"{_name(model)} has no weights: nothing to export.")
    return model


@torch.no_grad()
def trace(
    model: nn.Module,
    image_size: tuple[int, int] | None,
    *,
    dynamic_batch: bool,
    engines: tuple[Engine, ...],
) -> Traced:
    """Trace a model's inference; the attention of a reduced model uses one of ``engines``."""
    weight = next(model.parameters())
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    channels = next((m.in_channels for m in convolutions), 3)
    size = _own_size(model) if image_size is None else image_size
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise InputError(f"expected image_size as (height, width) in pixels, got {shown(size)}.")
    images = torch.zeros(
        _EXAMPLES if dynamic_batch else 1, channels, *size, dtype=weight.dtype, device=weight.device
    )
    logits = _run(model, images)
    form = copy.copy(model)  # with the same weights
    form._compiled_call_impl = None
    if isinstance(form, ReducedViT):
        form.check = False  # it would read the images
        form.engines = engines
    shapes = ({0: torch.export.Dim(OPEN, min=1)},) if dynamic_batch else None
    try:
        program = torch.export.export(form, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # a model may raise anything
        if "data-dependent" in str(error):
            raise _adaptive(model) from error
        raise ExportError(
            f"torch.export cannot trace {_name(model)}: {type(error).__name__}: {error}"
        ) from error
    for node in program.graph.nodes:
        # The file must not contain paths and code of this machine.
        node.meta.pop("stack_trace", None)
    return Traced(program, model, images, logits, dynamic_batch)


def _own_size(model: nn.Module) -> tuple[int, ...]:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    if not size:
        raise InputError(
            f"the image size of {_name(model)} is unknown; pass image_size=(height, width)."
        )
    return tuple(int(side) for side in size)


def _run(model: nn.Module, images: Tensor) -> Tensor:
    if isinstance(model, ReducedViT):
        model.backbone.check_images(images)
    try:
        given = model(images)
    except TokenredError:
        raise
    except Exception as error:  # a model may raise anything
        raise InputError(
            f"{_name(model)} does not run on images of shape {tuple(images.shape)}: "
            f"{type(error).__name__}: {error} Pass another image_size."
        ) from error
    if not isinstance(given, Tensor):
        raise ExportError(
            f"expected {_name(model)} to return one tensor, got {type(given).__name__}."
        )
    return given


def _adaptive(model: nn.Module) -> ExportError:
    who = repr(model.strategy.scorer) if isinstance(model, ReducedViT) else "it"
    return ExportError(
        f"{_name(model)} cannot be a graph, which is the same for all images: {who} looks at the "
        "images to decide how many tokens to remove or what to run. Use a strategy with fixed "
        "counts."
    )


def _name(model: nn.Module) -> str:
    return model.info.name if isinstance(model, ReducedViT) else type(model).__name__
