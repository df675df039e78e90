"""Makes tokenred's models known to timm once both are imported, whichever comes first.

Importing timm takes seconds, so tokenred waits for somebody else to do it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register_with_timm"]


def register_with_timm() -> None:
    """Register now if timm is imported, else as soon as it is."""
    if "timm" in sys.modules:
        importlib.import_module("tokenred.models.lvvit")
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


class _AfterTimm:
    """An import finder that leaves finding timm to the others, and acts when it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            register_with_timm()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
