"""Entries of a file's metadata: strict JSON of the kind that is expected, or an error."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from tokenred.core.errors import CheckpointError

__all__ = ["Check", "check_values", "cut", "number", "one_of", "read_entry", "several", "whole"]

Check = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words and as a question."""

_SHOWN = 60
_KINDS = {dict: "an object", list: "a list", type(None): "null"}


def read_entry(
    metadata: Mapping[str, str], name: str, kinds: type | tuple[type, ...], origin: str
) -> Any:
    """Parse an entry of a checkpoint's metadata.

    Args:
        metadata: of the file.
        name: of the entry.
        kinds: what its value may be: ``dict``, ``list``, ``type(None)``.
        origin: the file, for messages.

    Raises:
        CheckpointError: if the entry is missing, no JSON (NaN and names that come twice are none),
            or of another kind.
    """
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    wanted = f"JSON, {' or '.join(_KINDS[kind] for kind in kinds)}, in the metadata entry {name!r}"
    text = metadata.get(name)
    if text is None:
        raise CheckpointError(
            f"expected {wanted} of {origin}, which has no such entry; write the file again."
        )
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once
        )
    # Nesting of thousands of levels ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"expected {wanted} of {origin}, got {cut(text)} ({error}); write the file again "
            "with json.dumps."
        ) from error
    if not isinstance(value, kinds):
        raise CheckpointError(
            f"expected {wanted} of {origin}, got {cut(text)}; write the file again."
        )
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is out of range")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def check_values(values: Mapping[str, Any], checks: Mapping[str, Check], what: str) -> None:
    """Refuse values of unknown names or of the wrong kind.

    Args:
        values: by name.
        checks: by name.
        what: the values are, and of which file, for messages.

    Raises:
        CheckpointError: names the value, what came and what was expected.
    """
    for name, value in values.items():
        if name not in checks:
            raise CheckpointError(
                f"expected {what} to hold only {', '.join(checks)}, got {cut(name)}; take it out."
            )
        words, fits = checks[name]
        if not fits(value):
            raise CheckpointError(f"expected {name} in {what} as {words}, got {cut(value)}.")


def whole(low: int, high: int) -> Check:
    """A whole number in a range."""
    return f"a whole number from {low} to {high}", lambda v: type(v) is int and low <= v <= high


def number(low: float, high: float) -> Check:
    """A number in a range; NaN is in none."""
    return (
        f"a number from {low:g} to {high:g}",
        lambda v: type(v) in (int, float) and low <= v <= high,
    )


def one_of(*words: str) -> Check:
    """One of some words."""
    return f"one of {', '.join(map(repr, words))}", lambda v: isinstance(v, str) and v in words


def several(least: int, most: int, each: Check) -> Check:
    """A list of so many values."""
    count = f"{least}" if least == most else f"{least} to {most}"
    return (
        f"a list of {count}, each {each[0]}",
        lambda v: isinstance(v, list | tuple) and least <= len(v) <= most and all(map(each[1], v)),
    )


def cut(value: Any) -> str:
    """A value for a message, which stays short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
