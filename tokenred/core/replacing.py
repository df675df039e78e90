"""Changed copies of frozen objects, in a form that PyTorch 2.6 compiles, too."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

__all__ = ["replace"]

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """What ``dataclasses.replace`` gives, whose own check PyTorch 2.6 cannot compile."""
    given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}  # type: ignore[arg-type]
    given.update(changes)
    return type(value)(**given)
