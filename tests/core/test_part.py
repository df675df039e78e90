from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.core.part import Part


class Plain(tr.Scorer):
    """One line.

    And more.
    """

    power: float = 1.0


def test_a_class_body_is_a_frozen_dataclass() -> None:
    assert repr(Plain(2.0)) == "Plain(power=2.0)"
    assert Plain() == Plain(1.0)
    assert hash(Plain()) == hash(Plain(1.0))
    assert Plain() != Plain(2.0)
    with pytest.raises(AttributeError):
        Plain().power = 3.0  # type: ignore[misc]


def test_own_init_is_refused_where_it_is_written() -> None:
    with pytest.raises(tr.errors.ConfigError, match="annotated fields"):

        class Wrong(tr.Scorer):
            def __init__(self) -> None:
                pass


def test_summary_is_the_first_line() -> None:
    assert Plain.summary() == "One line."

    class Silent(Part):
        size: int = 3

    assert Silent.summary() == ""
