"""Whether a graph computes what the model computes.

Both are run on random images. Rounding is not the same in two programs, and where it decides which
of two tokens goes, or which attention entry θ keeps, an image comes out different. That is rare: 2
of 64 images with θ = 0.6 on DeiT-Ti, none of 512 with θ = 1 on the digits model. A wrong graph
fails on nearly all. So a reduced model that differs is asked again with other images, twice at
most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError
from tokenred.export.report import ExportError
from tokenred.reduced.model import ReducedViT

__all__ = ["Agreement", "check_agreement", "check_tolerance"]

_DRAWS = 3


@dataclass(frozen=True)
class Agreement:
    """How well a graph agrees with its model; the fields are those of `ExportReport`."""

    difference: float | None = None
    batches: tuple[int, ...] = ()
    draws: int = 0


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no tolerance.

    Raises:
        ConfigError: for anything but a number above 0.
    """
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not tolerance > 0:
        raise ConfigError(f"tolerance must be a number above 0, got {tolerance!r}.")


@torch.no_grad()
def check_agreement(
    model: nn.Module,
    run: Callable[[Tensor], Tensor],
    example: Tensor,
    *,
    batches: tuple[int, ...],
    tolerance: float,
) -> Agreement:
    """Run model and graph on the same images.

    Args:
        model: what was exported.
        run: the graph as a function of images.
        example: a batch; shape, type and device of an image.
        batches: batch sizes to run.
        tolerance: the largest difference allowed, as a share of the largest logit.

    Raises:
        ExportError: where they differ by more, or the graph does not run at some batch size.
    """
    draws = _DRAWS if isinstance(model, ReducedViT) else 1
    smallest = torch.inf
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        worst = 0.0
        for batch in batches:
            images = torch.randn(batch, *example.shape[1:], generator=generator).to(example)
            worst = max(worst, _difference(model(images), _run(run, images)))
        if worst <= tolerance:
            return Agreement(worst, batches, draw + 1)
        smallest = min(smallest, worst)
    raise ExportError(
        f"expected the exported graph to agree with the model within {tolerance:g} of the largest "
        f"logit, got a difference of {smallest:.2g} at batch sizes {', '.join(map(str, batches))}. "
        "Nothing was written. Weights of half precision need a larger tolerance; else please "
        "report it."
    )


def _run(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    try:
        return run(images)
    except Exception as error:  # each runtime fails in its own way
        raise ExportError(
            f"the exported graph does not run on a batch of {images.shape[0]}: "
            f"{type(error).__name__}: {error}. Nothing was written. Float32 weights run "
            "everywhere: model.float()."
        ) from error


def _difference(expected: Tensor, got: Tensor) -> float:
    expected, got = expected.double().cpu(), got.double().cpu()
    if got.shape != expected.shape:
        return torch.inf
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    difference = float((got - expected).abs().max() / scale)
    # NaN compares as smaller than any tolerance would be.
    return difference if difference == difference else torch.inf
