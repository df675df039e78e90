"""Archives of torch.export: for PyTorch, without tokenred."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.values import Positive, checked
from tokenred.export.traced import check_model, trace
from tokenred.export.verified import Agreement, ExportReport, check_place, write_files

__all__ = ["to_torch_export"]

_SUFFIX = ".pt2"
# A loop over tiles would freeze the batch size; PyTorch's fused call stays one operator.
_ENGINES = (FusedEngine(), PlainEngine())


@checked
def to_torch_export(
    reduced: nn.Module,
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    dynamic_batch: bool = True,
    check: bool = True,
    tolerance: Positive = 1e-4,
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
    model = check_model(reduced)
    place = check_place(path, _SUFFIX, overwrite=overwrite)
    traced = trace(model, image_size, dynamic_batch=dynamic_batch, engines=_ENGINES)
    agreement = Agreement()

    def write(draft: Path) -> None:
        nonlocal agreement
        with draft.open("r+b") as file:  # by a name of its own torch.export would warn
            torch.export.save(traced.program, file)
        if check:
            with draft.open("rb") as file:
                loaded = torch.export.load(file).module()
            agreement = traced.agreement(loaded, tolerance)

    size = write_files(place, write)
    inputs, outputs = traced.ports()
    return ExportReport(
        path=place,
        format="torch",
        bytes=size,
        opset=None,
        inputs=inputs,
        outputs=outputs,
        **vars(agreement),
    )
