"""From a model to a graph of PyTorch's own operators, the batch size left open."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tokenred.analysis.measure.image_costs import is_adaptive
from tokenred.attention import Engine
from tokenred.core.errors import ExportError, InputError, PartError, TokenredError
from tokenred.export.verified import Agreement, Ports, check_agreement
from tokenred.reduced.model import ReducedViT

__all__ = ["Traced", "check_model", "shape_of", "trace"]

# Another size than the check runs, so that a size that got into the graph is noticed.
_EXAMPLES = 2
_OPEN = "batch"


@dataclass(frozen=True, eq=False)
class Traced:
    """A model as a graph.

    Attributes:
        program: the graph with its weights.
        model: the model it was made of.
        example: a batch it takes.
        dynamic: whether the graph takes any batch size.
    """

    program: ExportedProgram
    model: nn.Module
    example: Tensor
    dynamic: bool

    @property
    def dynamic_shapes(self) -> tuple[dict[int, str], ...] | None:
        """The open dimensions by name."""
        return ({0: _OPEN},) if self.dynamic else None

    def agreement(self, run: Callable[[Tensor], Tensor], tolerance: float) -> Agreement:
        """Compare the model with what was made of it, see `check_agreement`."""
        batches = (1, 3) if self.dynamic else (1,)
        return check_agreement(self.model, run, self.example, batches=batches, tolerance=tolerance)

    def ports(self) -> tuple[Ports, Ports]:
        """Names and shapes of what goes in and comes out."""
        shapes = {node.name: node.meta.get("val") for node in self.program.graph.nodes}
        signature = self.program.graph_signature
        taken, given = (
            {str(name): shape_of(shapes[str(name)].shape) for name in names}
            for names in (signature.user_inputs, signature.user_outputs)
        )
        return taken, given


def shape_of(sizes: Sequence[Any]) -> tuple[int | str, ...]:
    """A shape of numbers, and a name where a dimension is open."""
    return tuple(size if isinstance(size, int) else _OPEN for size in sizes)


def check_model(model: nn.Module) -> nn.Module:
    """The model, without what torch.compile put around it.

    Raises:
        PartError: for what is no model.
        ExportError: for one in training mode, without weights, or whose token counts depend on the
            images.
    """
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
    """Trace a model's inference.

    Args:
        model: what `check_model` returned.
        image_size: (height, width); None for the model's own.
        dynamic_batch: any batch size, or one image at a time.
        engines: that a reduced model's attention may use in the graph.

    Raises:
        InputError: for a size that the model does not take.
        ExportError: for a model that gives no single tensor, or cannot be traced.
    """
    example = _example(model, image_size, _EXAMPLES if dynamic_batch else 1)
    _check_runs(model, example)
    dim = torch.export.Dim(_OPEN, min=1)
    try:
        program = torch.export.export(
            _as_traced(model, engines),
            (example,),
            dynamic_shapes=({0: dim},) if dynamic_batch else None,
            strict=False,
        )
    except Exception as error:  # the tracer lets through whatever a model raises
        raise _refusal(model, error) from error
    for node in program.graph.nodes:
        # Lines of code on this machine are nothing for a file that travels.
        node.meta.pop("stack_trace", None)
    return Traced(program, model, example, dynamic_batch)


def _as_traced(model: nn.Module, engines: tuple[Engine, ...]) -> nn.Module:
    """The same model and weights, without what is not for a graph."""
    form = copy.copy(model)
    form._compiled_call_impl = None
    if isinstance(form, ReducedViT):
        form.check_finite = False  # it would read the images
        form.engines = engines
    return form


def _example(model: nn.Module, image_size: tuple[int, int] | None, batch: int) -> Tensor:
    weight = next(model.parameters())
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    channels = next((m.in_channels for m in convolutions), 3)
    size = _own_size(model) if image_size is None else image_size
    if len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise InputError(f"expected image_size as (height, width) in pixels, got {size!r}.")
    return torch.zeros(batch, channels, *size, dtype=weight.dtype, device=weight.device)


def _own_size(model: nn.Module) -> tuple[int, ...]:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    if not size:
        raise InputError(
            f"{_name(model)} does not say which images it takes; pass image_size=(height, width)."
        )
    return tuple(int(side) for side in size)


def _check_runs(model: nn.Module, example: Tensor) -> None:
    if isinstance(model, ReducedViT):
        model.backbone.check_images(example)
    try:
        given = model(example)
    except TokenredError:
        raise
    except Exception as error:  # a model may refuse images in any way
        raise InputError(
            f"{_name(model)} does not run on images of shape {tuple(example.shape)}: "
            f"{type(error).__name__}: {error} Pass another image_size."
        ) from error
    if not isinstance(given, Tensor):
        raise ExportError(
            f"expected {_name(model)} to give one tensor, got {type(given).__name__}."
        )


def _refusal(model: nn.Module, error: Exception) -> ExportError:
    if "data-dependent" in str(error):
        return _adaptive(model)
    return ExportError(f"torch.export cannot trace {_name(model)}: {type(error).__name__}: {error}")


def _adaptive(model: nn.Module) -> ExportError:
    who = repr(model.strategy.scorer) if isinstance(model, ReducedViT) else "it"
    return ExportError(
        f"{_name(model)} does not fit into a graph: {who} looks at the images to decide how many "
        "tokens go or what else runs, and a graph is the same for all images. Take a strategy "
        "whose counts are known beforehand."
    )


def _name(model: nn.Module) -> str:
    return model.info.name if isinstance(model, ReducedViT) else type(model).__name__
