from __future__ import annotations

import pytest

import tokenred as tr
from tokenred.core.errors import ConfigError


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


@pytest.mark.parametrize("name", ["network", "traits", "version"])
def test_what_every_part_has_is_no_parameter(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' means something else in every part"):
        type("Mine", (tr.Scorer,), {"__annotations__": {name: int}, name: 1})
