"""Where the shared data lies: in ``TOKENRED_SHARED``, or beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "TOKENRED_SHARED"


def shared_path(*parts: str) -> Path:
    """Return a path in the shared data; skip the test where it is missing.

    Args:
        parts: such as ``"data", "cifar10-test.zip"``.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get(VARIABLE) or beside).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs the shared file {'/'.join(parts)}: set {VARIABLE} to its folder")
    return path
