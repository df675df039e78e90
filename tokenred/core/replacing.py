"""Changed copies of frozen objects, in a form that PyTorch 2.6 compiles, too."""

from __future__ import annotations

from dataclasses import Field
from typing import Any, TypeVar

__all__ = ["replace"]

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """What ``dataclasses.replace`` gives, whose own check PyTorch 2.6 cannot compile."""
    # Every block comes here several times: `fields` would make a tuple each time.
    known: dict[str, Field[Any]] = value.__dataclass_fields__  # type: ignore[attr-defined]
    given = {name: getattr(value, name) for name, field in known.items() if field.init}
    given.update(changes)
    return type(value)(**given)
