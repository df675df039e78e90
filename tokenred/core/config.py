"""Strategies as plain values: dictionaries, TOML, fingerprints."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w

from tokenred.attention.edits import attention_edits
from tokenred.core.errors import ConfigError, OutputExistsError, UnknownNameError
from tokenred.core.files import write_whole
from tokenred.core.fingerprint import digest, source_of
from tokenred.core.part import Part
from tokenred.core.registry import Registry
from tokenred.graphs.base import graph_builders
from tokenred.strategies.base import (
    embeddings,
    fusers,
    names_selector,
    routes,
    scorers,
    selectors,
)
from tokenred.strategies.schedules import schedules

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["fingerprint", "read_toml", "resolve", "to_config", "write_toml"]

_REGISTRIES: dict[str, Registry[Any]] = {
    "scorer": scorers,
    "selector": selectors,
    "graph": graph_builders,
    "fuser": fusers,
    "schedule": schedules,
    "route": routes,
    "edits": attention_edits,
    "embedding": embeddings,
}


def to_config(value: Any, *, strict: bool = True) -> Any:
    """A strategy or part as nested dictionaries of plain values.

    Args:
        value: a `Strategy`, a part, or a value inside one.
        strict: refuse parts without a registered name, which could not be read back; else they
            stand under the name of their class.

    Raises:
        ConfigError: for such a part.
    """
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: to_config(getattr(value, f.name), strict=strict)
            for f in dataclasses.fields(value)
            # What equality does not look at is only written where it was set.
            if f.compare or getattr(value, f.name) != f.default
        }
        return {"name": _name_of(value, strict)} | fields if isinstance(value, Part) else fields
    return [to_config(v, strict=strict) for v in value] if isinstance(value, tuple) else value


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """A dictionary with the parts that its values describe in their place.

    Raises:
        UnknownNameError: for unknown names of parts or of their parameters.
    """
    return {key: _part(key, value) for key, value in config.items()}


def fingerprint(value: Any) -> str:
    """16 hex digits over the configuration and the source of parts defined outside tokenred."""
    text = json.dumps(to_config(value, strict=False), sort_keys=True)
    sources = sorted({source_of(type(part)) for part in _parts_within(value)})
    return digest("\n".join([text, *sources]))


def write_toml(value: Any, path: str | Path | None, *, overwrite: bool) -> str:
    """See `Strategy.to_toml`."""
    text = tomli_w.dumps(_without_none(to_config(value)))
    if path is not None:
        path = Path(path)
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path} exists; pass overwrite=True to replace it.")
        write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))
    return text


def read_toml(source: str | Path) -> dict[str, Any]:
    """The values in TOML text, or in the file of that path.

    Raises:
        ConfigError: for a file that cannot be read or is no TOML.
    """
    is_path = isinstance(source, Path) or ("\n" not in source and source.endswith(".toml"))
    try:
        text = Path(source).read_text(encoding="utf-8") if is_path else str(source)
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read the strategy file {source}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        where = source if is_path else "the text given"
        raise ConfigError(f"{where} is not valid TOML: {error}.") from error


def _name_of(part: Part, strict: bool) -> str:
    for registry in _REGISTRIES.values():
        if isinstance(part, registry.base) and (name := registry.name_of(part)):
            return name
    cls = type(part)
    if strict:
        raise ConfigError(
            f"{cls.__name__} is not registered, so a file could not name it. Put "
            f"@tokenred.register_…({cls.__name__!r}) above the class."
        )
    return f"{cls.__module__}.{cls.__qualname__}"


def _part(key: str, value: Any) -> Any:
    """A part where the value describes one; anything else as it is."""
    if isinstance(value, list):
        return tuple(_part(key, v) for v in value)
    if not isinstance(value, dict) or "name" not in value:
        return value
    name = value["name"]
    fields = {k: _part(k, v) for k, v in value.items() if k != "name"}
    if key not in _REGISTRIES:
        raise UnknownNameError.of("kind of part", key, _REGISTRIES)
    # A scorer's place may hold a selector.
    registry = selectors if key == "scorer" and names_selector(name) else _REGISTRIES[key]
    make = registry[name].make
    known = [f.name for f in dataclasses.fields(make)]  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - set(known)):
        raise UnknownNameError.of(f"parameter of {registry.kind} {name!r}", unknown[0], known)
    return make(**fields)


def _parts_within(value: Any) -> Iterator[Part]:
    if isinstance(value, Part):
        yield value
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        for item in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(item, Part):
                yield from _parts_within(item)


def _without_none(value: Any) -> Any:
    """TOML has no null: what is None is left out, and read back as the default."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value
