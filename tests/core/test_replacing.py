from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from typing import ClassVar

import pytest

from tokenred.core.capture import replace


@dataclass(frozen=True)
class _Pair:
    left: int
    right: int = 2
    made: int = field(init=False, default=3)


def test_a_copy_with_changes() -> None:
    one = _Pair(1)
    other = replace(one, right=5)
    assert (one.left, one.right) == (1, 2)
    assert (other.left, other.right, other.made) == (1, 5, 3)
    with pytest.raises(FrozenInstanceError):
        other.left = 3  # type: ignore[misc]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="middle"):
        replace(_Pair(1), middle=1)


@dataclass(frozen=True)
class _OfTheClass:
    kind: ClassVar[str] = "pair"
    left: int = 0


def test_what_belongs_to_the_class_is_no_field() -> None:
    assert replace(_OfTheClass(), left=1) == _OfTheClass(1)
