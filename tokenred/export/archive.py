"""Archives of torch.export: for PyTorch, without tokenred."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tokenred.attention import FusedEngine, PlainEngine
from tokenred.export.agreement import Agreement, check_agreement, check_tolerance
from tokenred.export.graph import Traced, check_model, trace
from tokenred.export.place import check_place, write_checked
from tokenred.export.report import ExportReport

__all__ = ["to_torch_export"]

_SUFFIX = ".pt2"
# A loop over tiles would freeze the batch size; PyTorch's fused call stays one operator.
_ENGINES = (FusedEngine(), PlainEngine())


def to_torch_export(
    reduced: nn.Module,
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    dynamic_batch: bool = True,
    check: bool = True,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model as an archive of torch.export.

    ``torch.export.load(path).module()`` gives it back as a module of images, in programs that have
    neither tokenred nor timm.

    Args:
        reduced: what `tokenred.wrap` returned, or a plain model, in eval mode.
        path: of the file, ending in ``.pt2``.
        image_size: (height, width) of its images; None for the model's own.
        dynamic_batch: take any batch size; else one image at a time.
        check: load the file and run it at two batch sizes against the model.
        tolerance: the largest difference allowed, as a share of the largest logit.
        overwrite: whether an older file may be replaced.

    Raises:
        ExportError: for a model that does not fit into a graph, such as one whose token counts
            depend on the images, or a graph that differs from it; nothing is written then.
        PartError: for what is no model.
        InputError: for a size that the model does not take.
        ConfigError: for another suffix, or a tolerance that is none.
        OutputExistsError, DataError: where the file is there already or cannot be written.
    """
    check_tolerance(tolerance)
    model = check_model(reduced)
    place = check_place(path, _SUFFIX, overwrite=overwrite)
    traced = trace(model, image_size, dynamic_batch=dynamic_batch, engines=_ENGINES)

    def write(draft: Path) -> Agreement:
        torch.export.save(traced.program, draft)
        return _checked(traced, draft, tolerance) if check else Agreement()

    agreement, size = write_checked(place, write)
    inputs, outputs = traced.ports()
    return ExportReport(
        path=place,
        format="torch",
        bytes=size,
        opset=None,
        difference=agreement.difference,
        batches=agreement.batches,
        draws=agreement.draws,
        inputs=inputs,
        outputs=outputs,
    )


def _checked(traced: Traced, draft: Path, tolerance: float) -> Agreement:
    loaded = torch.export.load(draft).module()

    def run(images: Tensor) -> Tensor:
        logits: Tensor = loaded(images)
        return logits

    return check_agreement(
        traced.model, run, traced.example, batches=traced.batches, tolerance=tolerance
    )
