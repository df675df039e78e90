"""Write a graph to a file that is compared with the model before it gets its name.

Both are run on random images. Rounding differs between programs, and where it decides which of two
tokens is removed, or which attention entry θ keeps, the results differ. That is rare: 2 of 64
images with θ = 0.6 on DeiT-Ti, none of 512 with θ = 1 on the digits model; a wrong graph fails on
nearly all. So a reduced model that differs is compared again on other images, at most twice.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError, ExportError
from tokenred.core.files import prepare_folder, write_whole
from tokenred.export.traced import OPEN, Traced
from tokenred.reduced.model import ReducedViT

Ports: TypeAlias = Mapping[str, tuple[int | str, ...]]
Run: TypeAlias = Callable[[Tensor], Tensor]
_DRAWS = 3


@dataclass(frozen=True)
class ExportReport:
    """A file that was written.

    Attributes:
        path: the file.
        format: ``"onnx"`` or ``"torch"``.
        bytes: its size, including a separate file of weights.
        opset: the version of ONNX's operators; None for an archive of torch.export.
        difference: the largest difference from the model's logits in the check, as a share of the
            largest logit; None if nothing was checked.
        batches: the batch sizes of the check.
        draws: how often images were drawn for the check: more than once if the results on the
            first ones differed (see `tokenred.export.verified`).
        inputs, outputs: shapes by name; an open dimension is given by its name.
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


def write_verified(
    place: Path,
    traced: Traced,
    save: Callable[[Path], object],
    load: Callable[[Path], Run] | None,
    *,
    tolerance: float,
    opset: int | None = None,
    several: bool = False,
) -> ExportReport:
    """Save a graph and, with ``load``, compare it with its model; see `check_agreement`."""
    batches = (1, 3) if traced.dynamic else (1,)
    found: tuple[float | None, int] = (None, 0)

    def write(draft: Path) -> None:
        nonlocal found
        save(draft)
        if load is not None:
            found = check_agreement(
                traced.model, load(draft), traced.images, batches=batches, tolerance=tolerance
            )

    first: int | str = OPEN if traced.dynamic else 1
    return ExportReport(
        path=place,
        format="torch" if opset is None else "onnx",
        bytes=write_files(place, write, several=several),
        opset=opset,
        difference=found[0],
        batches=() if load is None else batches,
        draws=found[1],
        inputs={"images": (first, *traced.images.shape[1:])},
        outputs={"logits": (first, *traced.logits.shape[1:])},
    )


@torch.no_grad()
def check_agreement(
    model: nn.Module, run: Run, example: Tensor, *, batches: tuple[int, ...], tolerance: float
) -> tuple[float, int]:
    """Run model and graph on random images like the example, in batches of these sizes.

    Returns:
        The largest difference, as a share of the largest logit, and how often images were drawn.
    """
    smallest = torch.inf
    for draw in range(_DRAWS if isinstance(model, ReducedViT) else 1):
        generator = torch.Generator().manual_seed(draw)
        worst = 0.0
        for batch in batches:
            images = torch.randn(batch, *example.shape[1:], generator=generator).to(example)
            worst = max(worst, _difference(model(images), _answer(run, images)))
        if worst <= tolerance:
            return worst, draw + 1
        smallest = min(smallest, worst)
    raise ExportError(
        f"expected the exported graph to agree with the model within {tolerance:g} of the largest "
        f"logit, got a difference of {smallest:.2g} at batch sizes {', '.join(map(str, batches))}. "
        "Nothing was written. Weights of half precision need a larger tolerance; otherwise please "
        "report it."
    )


def _answer(run: Run, images: Tensor) -> Tensor:
    try:
        return run(images)
    except Exception as error:  # each runtime fails in its own way
        raise ExportError(
            f"the exported graph does not run on a batch of {images.shape[0]}: "
            f"{type(error).__name__}: {error}. Nothing was written. Try float32 weights: "
            "model.float()."
        ) from error


def _difference(expected: Tensor, got: Tensor) -> float:
    expected, got = expected.double().cpu(), got.double().cpu()
    if got.shape != expected.shape:
        return torch.inf
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    difference = (got - expected).abs().max() / scale
    return float(difference.nan_to_num(torch.inf))


def check_place(path: str | Path, suffix: str, *extra: str, overwrite: bool = False) -> Path:
    """Check that a path and its ``extra`` suffixes may be written, and create its folder."""
    path = Path(path).expanduser()
    if path.suffix != suffix:
        raise ConfigError(f"expected a file name ending in {suffix}, got {path.name!r}.")
    names = (path.name, *(path.stem + end for end in extra))
    return prepare_folder(path.parent, names, overwrite=overwrite)[0]


def write_files(path: Path, write: Callable[[Path], object], *, several: bool = False) -> int:
    """Write a file completely or not at all, and return its size in bytes.

    ``write`` fills and checks a draft. If it raises, or is killed while it writes a single file,
    nothing is left behind. With ``several``, it may write other files next to the draft.
    """
    if not several:
        return write_whole(path, write).stat().st_size
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / path.name
        write(draft)
        # The file itself comes last, so that the files it refers to are already there.
        files = sorted(draft.parent.iterdir(), key=lambda file: file == draft)
        size = sum(file.stat().st_size for file in files)
        for file in files:
            os.replace(file, path.with_name(file.name))
    return size
