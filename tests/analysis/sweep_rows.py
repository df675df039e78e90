"""A row as a sweep has it."""

from typing import Any

NO_FIGURES = ("speedup", "speedup_low", "speedup_high", "allowed", "gmacs", "pairs",
              "images_per_second", "realised", "realised_low", "realised_high")  # fmt: skip


def make_row(key: str = "a", **changes: Any) -> dict[str, Any]:
    """A row as a sweep has it."""
    row = {
        "key": key, "status": "done", "model": "vit", "strategy": "gtp:P=8", "method": "gtp",
        "batch_size": 8, "image_size": "224x224", "dtype": "float32", "compile": "false",
        "device": "cpu", "processor": "P", "cores": 2, "threads": 2, "platform": "L",
        "python": "3", "torch": "2", "timm": "1", "tokenred": "0.1", "tokens": 197, "pairs": 15,
        "dense_ms": 120.0, "ms": 100.0, "images_per_second": 80.0, "speedup": 1.2,
        "speedup_low": 1.1, "speedup_high": 1.3, "gmacs": 3.0, "dense_gmacs": 4.0,
        "overhead_gmacs": 0.1, "allowed": 4 / 3, "realised": 0.9, "realised_low": 0.825,
        "realised_high": 0.975, "seed": 0, **changes,
    }  # fmt: skip
    failed = row["status"] != "done"
    return {n: value for n, value in row.items() if not (failed and n in NO_FIGURES)}
