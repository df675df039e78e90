"""Fingerprints of many strategies in a row: the text of each part is made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from tokenred.analysis.study.marks import Marks, Memo
from tokenred.core.config import to_config
from tokenred.core.fingerprint import digest, source_of
from tokenred.core.part import Part
from tokenred.core.plan import Strategy

__all__ = ["Fingerprints", "parts_within"]

# What equality does not look at is left out where it was not set; all else stands there.
_ALWAYS = object()
_FIELDS = sorted((f.name, _ALWAYS if f.compare else f.default) for f in fields(Strategy))
# A part or scalar as JSON, and the sources of the own classes in it.
_Told = tuple[str, frozenset[str]]


class Fingerprints:
    """Gives what `Strategy.fingerprint` gives, faster for strategies that share parts.

    For one pass over a grid: it takes the source of own parts as it is at the first look.
    """

    def __init__(self) -> None:
        self._told: Memo[_Told] = Memo()
        self._sources: dict[type, str] = {}

    def __call__(self, strategy: Strategy, marks: Marks) -> str:
        """The fingerprint.

        Args:
            strategy: whose.
            marks: of its parts.
        """
        texts, sources = [], set[str]()
        for name, default in _FIELDS:
            value = getattr(strategy, name)
            if default is not _ALWAYS and value == default:
                continue
            key = marks[name] if name in marks else (type(value), value)
            text, own = self._told.get(key, self._tell, value)
            texts.append(f'"{name}": {text}')
            sources |= own
        return digest("\n".join([f"{{{', '.join(texts)}}}", *sorted(sources)]))

    def _tell(self, value: Any) -> _Told:
        text = json.dumps(to_config(value, strict=False), sort_keys=True)
        parts = [item for item in _listed(value) if isinstance(item, Part)]
        classes = {type(inner) for part in parts for inner in parts_within(part)}
        return text, frozenset(self._source(cls) for cls in classes)

    def _source(self, cls: type) -> str:
        if cls not in self._sources:
            _forget_pickling(cls)
            self._sources[cls] = source_of(cls)
        return self._sources[cls]


def _forget_pickling(cls: type) -> None:
    """Take from own classes what pickling an instance leaves on them: it is no part of them."""
    for own in cls.__mro__:
        if "__slotnames__" in vars(own) and not own.__module__.startswith("tokenred."):
            type.__delattr__(own, "__slotnames__")


def parts_within(part: Part) -> Iterator[Part]:
    """A part, and the parts that it holds."""
    yield part
    for field in fields(part):  # type: ignore[arg-type]
        for item in _listed(getattr(part, field.name)):
            if isinstance(item, Part):
                yield from parts_within(item)


def _listed(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
