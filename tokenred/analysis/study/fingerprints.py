"""Fingerprints of many strategies in a row: the text of each part is made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from tokenred.analysis.study.marks import Marks, Memo
from tokenred.core.fingerprint import digest
from tokenred.core.part import Part
from tokenred.strategies.config import counts, told_text
from tokenred.strategies.strategy import Strategy

__all__ = ["Fingerprints", "parts_within"]

_FIELDS = fields(Strategy)


class Fingerprints:
    """Gives what `Strategy.fingerprint` gives, faster for strategies that share parts.

    For one pass over a grid: it takes own parts as they are at the first look.
    """

    def __init__(self) -> None:
        self._told: Memo[str] = Memo()
        self._codes: dict[type, str] = {}

    def __call__(self, strategy: Strategy, marks: Marks) -> str:
        """The fingerprint.

        Args:
            strategy: whose.
            marks: of its parts.

        Raises:
            PartError: as `Strategy.fingerprint`.
        """
        texts = []
        for field in _FIELDS:
            name, value = field.name, getattr(strategy, field.name)
            if counts(field, value):
                key = marks[name] if name in marks else (type(value), value)
                texts.append(f"{name} {self._told.get(key, self._tell, value)}")
        return digest("\n".join(texts))

    def _tell(self, value: Any) -> str:
        return told_text(value, self._codes)


def parts_within(part: Part) -> Iterator[Part]:
    """A part, and the parts that it holds."""
    yield part
    for field in fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Part):
                yield from parts_within(item)
