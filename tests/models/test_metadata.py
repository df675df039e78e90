from __future__ import annotations

import pytest

from tokenred.core.errors import CheckpointError
from tokenred.models.metadata import check_values, number, one_of, read_entry, several, whole


def test_an_entry_is_read() -> None:
    metadata = {"a": '{"x": [1, 2.5, null, true]}', "b": "null"}
    assert read_entry(metadata, "a", dict, "w") == {"x": [1, 2.5, None, True]}
    assert read_entry(metadata, "b", (dict, type(None)), "w") is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "null", "1", '"x"', "{'x': 1}", '{"x": NaN}', '{"x": -Infinity}'),
        *('{"x": 1e999}', '{"x": 1, "x": 2}', "[" * 10**5, '{"x":' * 10**5, "9" * 5000),
        "\ud800",
    ],
    ids=lambda text: text[:16].encode("ascii", "backslashreplace").decode(),
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"expected JSON, an object, in .* 'a'"):
        read_entry({"a": text}, "a", dict, "w")


def test_a_missing_entry_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no such entry"):
        read_entry({}, "a", dict, "w")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("count", v) for v in (0, 9, True, 2.0, "2", None, [2])],
        *[("share", v) for v in (-0.1, 2, True, "1", float("nan"), float("inf"))],
        *[("word", v) for v in ("c", "", 1, ["a"], None)],
        *[("pair", v) for v in ([1], [1, 2, 3], [1, 9], 1, "ab", {"a": 1, "b": 2})],
        ("other", 1),
    ],
)
def test_values_are_checked(name: str, value: object) -> None:
    checks = {"count": whole(1, 8), "share": number(0, 1), "word": one_of("a", "b")}
    checks["pair"] = several(2, 2, whole(1, 8))
    check_values({"count": 1, "share": 1, "word": "b", "pair": [1, 8]}, checks, "the values of w")
    with pytest.raises(CheckpointError, match=f"{name}.* in the values|the values of w to hold"):
        check_values({name: value}, checks, "the values of w")
