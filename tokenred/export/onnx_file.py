"""ONNX files, for runtimes such as onnxruntime, TensorRT and OpenVINO."""

import logging
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from tokenred.attention import PlainEngine
from tokenred.core.errors import ConfigError, ExportError, optional
from tokenred.core.values import Positive, checked
from tokenred.export.traced import OPEN, Traced, check_model, trace
from tokenred.export.verified import ExportReport, check_place, write_verified

_IMAGES, _LOGITS = "images", "logits"
# ONNX has no fused attention before opset 23, and its operator takes no bias on keys alone.
_ENGINES = (PlainEngine(),)
# Most bytes of weights in one file: protobuf's limit is 2 GiB, and the graph needs space, too.
_ONE_FILE = 2**31 - 2**26
_END = torch.iinfo(torch.int64).max


@checked
def to_onnx(
    reduced: nn.Module,
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    dynamic_batch: bool = True,
    opset: Annotated[int, Ge(18)] | None = None,
    check: bool = True,
    tolerance: Positive = 1e-4,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model as an ONNX file, with input ``images`` and output ``logits``.

    Weights of more than 2 GB go to a second file next to it, named ``….onnx.data``.

    Args:
        reduced: what `tokenred.wrap` returned, or a plain model, in eval mode.
        path: the file, ending in ``.onnx``.
        image_size: (height, width) in pixels; None for the model's own.
        dynamic_batch: take any batch size; otherwise one image at a time.
        opset: version of ONNX's operators, at least 18; None for PyTorch's choice.
        check: run the file in onnxruntime and compare it with the model at two batch sizes.
        tolerance: the largest difference allowed, as a share of the largest logit.
        overwrite: whether to replace an existing file.

    Raises:
        ExportError: if the model cannot be a graph, for example because its token counts depend
            on the images, if ONNX lacks an operator, or if the graph differs from the model;
            nothing is written then.
        PartError: if it is not a model.
        InputError: for an image size that the model does not take.
        ConfigError: for another suffix, opset or tolerance.
        OutputExistsError, DataError: if the file exists or cannot be written.
        MissingExtraError: without onnx, onnxscript and (for the check) onnxruntime.
    """
    model = check_model(reduced)
    for package in ("onnx", "onnxscript", *(["onnxruntime"] if check else [])):
        optional(package, "export", f"exporting to ONNX needs {package}")
    newest = import_module("onnx").defs.onnx_opset_version()
    if opset is not None and opset > newest:
        raise ConfigError(f"expected an opset of at most {newest}, got {opset}.")
    weights = (p.numel() * p.element_size() for p in model.state_dict().values())
    beside = sum(weights) > _ONE_FILE
    place = check_place(path, ".onnx", *([".onnx.data"] if beside else []), overwrite=overwrite)
    traced = trace(model, image_size, dynamic_batch=dynamic_batch, engines=_ENGINES)
    program = _translate(traced, opset)
    return write_verified(
        place,
        traced,
        lambda draft: program.save(draft, external_data=beside),
        _load if check else None,
        tolerance=tolerance,
        opset=program.model.opset_imports[""],
        several=beside,
    )


def _translate(traced: Traced, opset: int | None) -> Any:
    # Its optimiser warns about every constant that it does not fold.
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        program: Any = torch.onnx.export(
            traced.program,
            (),
            input_names=[_IMAGES],
            output_names=[_LOGITS],
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=({0: OPEN},) if traced.dynamic else None,
            custom_translation_table=translations(),
            optimize=True,
            verbose=False,
        )
    except Exception as error:  # the exporter wraps whatever a translation raises
        found = re.search(r"No ONNX function found for <OpOverload\(op='(.+?)'.*?\)>", str(error))
        reason = f"{type(error).__name__}: {error}"
        if found:
            reason = f"ONNX has no translation of {found[1]}, which some part of it uses"
        raise ExportError(
            f"cannot write {type(traced.model).__name__} as ONNX: {reason}. An archive of "
            "torch.export holds any operator: use to_torch_export."
        ) from error
    finally:
        logger.setLevel(level)
    got = program.model.opset_imports[""]
    if opset not in (None, got):
        raise ExportError(f"expected opset {opset}, but PyTorch wrote {got}. Pass opset={got}.")
    return program


def _load(path: Path) -> Callable[[Tensor], Tensor]:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions as well
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors have no common base
        raise ExportError(
            f"onnxruntime cannot open the exported graph: {error}. Nothing was written. Float32 "
            "weights and PyTorch's own choice of opset run everywhere."
        ) from error

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([_LOGITS], {_IMAGES: images.cpu().numpy()})
        return torch.from_numpy(logits)

    return run


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """ONNX functions for operators that tokenred's parts use and PyTorch's exporter does not know.

    Both use ONNX's TopK, which keeps the order of equal entries: over all entries, it is a stable
    sort.
    """
    op: Any = import_module("onnxscript").opset18

    # PyTorch's argument names; the annotations tell which arguments are not tensors.
    def sort_stable(
        self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
    ) -> Any:
        entries = op.Gather(op.Shape(self), [dim])
        return op.TopK(self, entries, axis=dim, largest=int(descending), sorted=1)

    def kthvalue(self: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
        values, places = op.TopK(self, [k], axis=dim, largest=0, sorted=1)
        last = [op.Slice(found, [k - 1], [_END], [dim]) for found in (values, places)]
        return tuple(last if keepdim else (op.Squeeze(found, [dim]) for found in last))

    return {torch.ops.aten.sort.stable: sort_stable, torch.ops.aten.kthvalue.default: kthvalue}
