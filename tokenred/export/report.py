"""What an export tells about its file, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tokenred.core.errors import ExportError

__all__ = ["ExportError", "ExportReport", "Ports"]

Ports: TypeAlias = Mapping[str, tuple[int | str, ...]]


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
            differed (see `tokenred.export.agreement`).
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
