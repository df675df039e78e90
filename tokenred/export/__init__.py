"""A reduced model as one file: ONNX, or an archive of torch.export.

A file holds the graph and the weights, and needs neither tokenred nor timm. Token counts are part
of the graph; the batch size stays open. Each file is run and compared with the model before it
gets its name.

    >>> import tokenred as tr, tokenred.export
    >>> fast = tr.wrap(tr.models.load_model("digits"), "gtp")
    >>> tr.export.to_onnx(fast, "digits.onnx")  # doctest: +SKIP
"""

from tokenred.core.errors import ExportError
from tokenred.export.archive import to_torch_export
from tokenred.export.onnx_file import to_onnx
from tokenred.export.verified import ExportReport

__all__ = ["ExportError", "ExportReport", "to_onnx", "to_torch_export"]
