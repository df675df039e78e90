"""The shared data (in ``TOKENRED_SHARED``, or beside the checkout) and the scripts."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "TOKENRED_SHARED"


def shared_path(*parts: str) -> Path:
    """Return a path in the shared data; skip the test where it is missing.

    Args:
        parts: such as ``"data", "cifar10-test.zip"``.
    """
    beside = ROOT.parent / "shared"
    path = Path(os.environ.get(VARIABLE) or beside).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs the shared file {'/'.join(parts)}: set {VARIABLE} to its folder")
    return path


def script(name: str) -> ModuleType:
    """A module of ``scripts/``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
