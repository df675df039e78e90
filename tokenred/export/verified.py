"""A file for a model's graph: compared with the model first, and only then put in its place.

Both are run on random images. Rounding is not the same in two programs, and where it decides which
of two tokens goes, or which attention entry θ keeps, an image comes out different. That is rare: 2
of 64 images with θ = 0.6 on DeiT-Ti, none of 512 with θ = 1 on the digits model. A wrong graph
fails on nearly all. So a reduced model that differs is asked again with other images, twice at
most.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, ExportError
from tokenred.core.files import prepare_folder, write_whole
from tokenred.reduced.model import ReducedViT

__all__ = ["Agreement", "ExportReport", "Ports", "check_agreement", "check_place", "write_files"]

Ports: TypeAlias = Mapping[str, tuple[int | str, ...]]
Run: TypeAlias = Callable[[Tensor], Tensor]
_DRAWS = 3


@dataclass(frozen=True)
class Agreement:
    """How well a graph agrees with its model; the fields are those of `ExportReport`."""

    difference: float | None = None
    batches: tuple[int, ...] = ()
    draws: int = 0


@dataclass(frozen=True)
class ExportReport:
    """A file that was written.

    Attributes:
        path: the file.
        format: ``"onnx"`` or ``"torch"``.
        bytes: its size, that of a file of weights beside it included.
        opset: the version of ONNX's operators, None for an archive of torch.export.
        difference: the largest difference from the model's logits in the check, as a share of the
            largest logit; None where nothing was checked.
        batches: the batch sizes that were run.
        draws: how often images were drawn for the check: more than once where the first ones
            differed (see `tokenred.export.verified`).
        inputs: shape by name; an open dimension has a name.
        outputs: likewise.
    """

    path: Path
    format: str
    bytes: int
    opset: int | None
    difference: float | None
    batches: tuple[int, ...]
    draws: int
    inputs: Ports
    outputs: Ports


@torch.no_grad()
def check_agreement(
    model: nn.Module, run: Run, example: Tensor, *, batches: tuple[int, ...], tolerance: float
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
    smallest = torch.inf
    for draw in range(_DRAWS if isinstance(model, ReducedViT) else 1):
        generator = torch.Generator().manual_seed(draw)
        worst = 0.0
        for batch in batches:
            images = torch.randn(batch, *example.shape[1:], generator=generator).to(example)
            worst = max(worst, _difference(model(images), _answer(run, images)))
        if worst <= tolerance:
            return Agreement(worst, batches, draw + 1)
        smallest = min(smallest, worst)
    raise ExportError(
        f"expected the exported graph to agree with the model within {tolerance:g} of the largest "
        f"logit, got a difference of {smallest:.2g} at batch sizes {', '.join(map(str, batches))}. "
        "Nothing was written. Weights of half precision need a larger tolerance; else please "
        "report it."
    )


def _answer(run: Run, images: Tensor) -> Tensor:
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


def check_place(path: str | Path, suffix: str, *extra: str, overwrite: bool = False) -> Path:
    """A path that may be written; its folder is made.

    Args:
        path: of the file.
        suffix: that it must have.
        extra: suffixes of files that will lie beside it, such as ``.onnx.data``.
        overwrite: whether older files may be replaced.

    Raises:
        ConfigError: for another suffix.
        OutputExistsError: where a file is there already.
        DataError: for a folder that cannot be written to.
    """
    path = Path(path).expanduser()
    if path.suffix != suffix:
        raise ConfigError(f"expected a file name ending in {suffix}, got {path.name!r}.")
    names = (path.name, *(path.stem + end for end in extra))
    return prepare_folder(path.parent, names, overwrite=overwrite)[0]


def write_files(path: Path, write: Callable[[Path], Any], *, several: bool = False) -> int:
    """Write a file whole or not at all, and what belongs beside it.

    Args:
        path: of the file.
        write: fills the file whose path it is given, and checks it. Where it raises, or is killed
            over a single file, nothing is left behind.
        several: whether it puts others beside the file; it then has a folder of its own.

    Returns:
        The size of all its files in bytes.
    """
    if not several:
        return write_whole(path, write).stat().st_size
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / path.name
        write(draft)
        # The file itself comes last: once it is there, so is what it refers to.
        files = sorted(draft.parent.iterdir(), key=lambda file: file == draft)
        size = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, path.with_name(file.name))
    return size
