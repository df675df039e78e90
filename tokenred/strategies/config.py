"""Strategies as plain values: dictionaries, TOML, fingerprints."""

import dataclasses
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, PartError, UnknownNameError
from tokenred.core.files import check_new, write_whole
from tokenred.core.fingerprint import digest, identity_of
from tokenred.core.part import Part
from tokenred.core.registry import KINDS
from tokenred.core.values import read
from tokenred.strategies.base import names_selector, selectors
from tokenred.strategies.step import Step


def to_config(value: Any, *, strict: bool = True) -> Any:
    """A strategy or part as nested dictionaries of plain values.

    Args:
        value: a `Strategy`, a part, or a value inside one.
        strict: refuse parts without a registered name, which could not be read back; otherwise they
            are written under the name of their class.

    Raises:
        ConfigError: for such a part.
    """
    if dataclasses.is_dataclass(value):
        fields = {name: to_config(held, strict=strict) for name, held in _written(value)}
        return {"name": _name_of(value, strict)} | fields if isinstance(value, Part) else fields
    return [to_config(v, strict=strict) for v in value] if isinstance(value, tuple) else value


def _name_of(part: Part, strict: bool) -> str:
    for registry in KINDS.values():
        if isinstance(part, registry.base) and (name := registry.name_of(part)):
            return name
    cls = type(part)
    if strict:
        raise ConfigError(
            f"{cls.__name__} is not registered, so a file cannot name it. Put "
            f"@tokenred.register_…({cls.__name__!r}) above the class."
        )
    return f"{cls.__module__}.{cls.__qualname__}"


def _written(value: Any) -> list[tuple[str, Any]]:
    if hasattr(value, "arguments"):  # of a strategy, which says what it takes
        return list(value.arguments().items())
    fields = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
    # Fields ignored by equality are written only if they were set.
    return [(field.name, v) for field, v in fields if field.compare or v != field.default]


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Replace the values of a dictionary that describe parts by the parts.

    Raises:
        UnknownNameError: for unknown names of parts or of their parameters.
    """
    for key in config:
        read(str, key, "a key")
    try:
        return {key: _part(key, value) for key, value in config.items()}
    except RecursionError:
        raise ConfigError("expected a part, got tables nested too deeply.") from None


def _part(key: str, value: Any) -> Any:
    """The part that a value describes; any other value unchanged."""
    if isinstance(value, list):
        return [_part(key, v) for v in value]
    if not isinstance(value, dict) or "name" not in value:
        return value
    name = value["name"]
    fields = resolve({k: v for k, v in value.items() if k != "name"})
    fields = {k: _frozen(v) for k, v in fields.items()}
    if key not in KINDS:
        raise UnknownNameError.of("kind of part", key, KINDS)
    # The scorer may be a selector.
    registry = selectors if key == "scorer" and names_selector(name) else KINDS[key]
    return registry[name].make(**fields)


def _frozen(value: Any) -> Any:
    """A list from a file, as a part stores it."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def fingerprint(value: Any) -> str:
    """16 hex digits over all values of a strategy and the code of its parts."""
    codes: dict[type, str] = {}
    return digest("\n".join(f"{name} {told_text(held, codes)}" for name, held in _written(value)))


def fingerprint_if_any(value: Any) -> str:
    """The fingerprint for a row; "" if there is none."""
    try:
        return fingerprint(value)
    except PartError:
        return ""


def told_text(value: Any, codes: dict[type, str]) -> str:
    """A value of a strategy as text, the same for values that are equal (1 and 1.0).

    Args:
        value: a part, a plain value, or any parameter of a user's part.
        codes: a cache of digests by class of part; extended here.

    Raises:
        PartError: for a value that cannot identify a stored result.
    """
    if isinstance(value, Part | Step):
        kind, code = type(value), ""
        if isinstance(value, Part):
            if kind not in codes:
                codes[kind] = identity_of(kind, kind.__qualname__, home=kind.__module__)
            code = f" {codes[kind]}"
        inner = ", ".join(f"{name}={told_text(held, codes)}" for name, held in _written(value))
        return f"{kind.__name__}{code}({inner})"
    if isinstance(value, tuple):
        return f"({', '.join(told_text(item, codes) for item in value)})"
    if type(value) is float and value.is_integer():
        return repr(int(value))
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    return identity_of(value, "a parameter")


def write_toml(value: Any, path: str | Path | None, *, overwrite: bool) -> str:
    """See `Strategy.to_toml`."""
    import tomli_w  # here, so that everything else works on machines that lack it

    text = tomli_w.dumps(_without_none(to_config(value)))
    if path is not None:
        path = check_new(path, overwrite=overwrite)
        write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))
    return text


def _without_none(value: Any) -> Any:
    """TOML has no null: None is omitted, and read back as the default."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value
