"""The folders at the root have the same objects as the package."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["strategies", "graphs", "analysis"])
def test_same_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, name, raising=False)
    door, context = importlib.import_module(name), importlib.import_module(f"tokenred.{name}")
    assert Path(str(door.__file__)).parent == ROOT / name
    assert context.__all__
    for public in context.__all__:
        assert getattr(door, public) is getattr(context, public)
