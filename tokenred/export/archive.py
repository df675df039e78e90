"""Archives of torch.export, which run in PyTorch without tokenred."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenred.attention import FusedEngine, PlainEngine
from tokenred.core.values import Positive, checked
from tokenred.export.traced import check_model, trace
from tokenred.export.verified import ExportReport, check_place, write_verified

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

    ``torch.export.load(path).module()`` returns a module that takes images, in programs that have
    neither tokenred nor timm.

    Args:
        reduced, image_size, dynamic_batch, tolerance, overwrite: as for `to_onnx`.
        path: the file, ending in ``.pt2``.
        check: load the file and compare it with the model at two batch sizes.

    Raises:
        TokenredError: see `to_onnx`; nothing is written then.
    """
    model = check_model(reduced)
    place = check_place(path, ".pt2", overwrite=overwrite)
    traced = trace(model, image_size, dynamic_batch=dynamic_batch, engines=_ENGINES)

    def save(draft: Path) -> None:
        with draft.open("r+b") as file:  # torch.export warns about a name without .pt2
            torch.export.save(traced.program, file)

    return write_verified(place, traced, save, _load if check else None, tolerance=tolerance)


def _load(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as file:
        module: Callable[[Tensor], Tensor] = torch.export.load(file).module()
    return module
