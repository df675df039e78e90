"""Study files: a grid, and how it is run, as TOML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.core.errors import ConfigError, UnknownNameError, shown
from tokenred.core.files import read_toml
from tokenred.core.values import read
from tokenred.data.places import located

_NOT_IN_STUDY = {"axes", "cells", "where"}
_OF_RUN = ("engine", "workers", "threads", "address", "gpus", "retries")
_TABLES = {"study": dict, "axes": dict, "cells": list}
_PATHS = ("store", "output")


@dataclass
class StudyFile:
    """The contents of a study file."""

    grid: dict[str, Any] = field(default_factory=dict)  # arguments of `tokenred.analysis.Grid`
    run: dict[str, Any] = field(default_factory=dict)  # arguments of `Grid.run`
    store: Path | None = None
    output: Path | None = None  # a CSV file


def read_study(path: str | Path, of_grid: Iterable[str]) -> StudyFile:
    """Read a study file. Paths in it are relative to its folder.

    Args:
        path: of a TOML file with the tables ``[study]`` and ``[axes]``, and any number of
            ``[[cells]]``.
        of_grid: the parameters of `tokenred.analysis.Grid`.

    Raises:
        ConfigError: for a file that cannot be read, is not TOML, or has neither axes nor cells.
        UnknownNameError: for unknown keys and tables.
    """
    own = [name for name in of_grid if name not in _NOT_IN_STUDY]
    path = Path(path).expanduser()
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "no such file"
        raise ConfigError(f"cannot read the study file {path}: {found}; check the path.")
    values = read_toml(path)
    _check_names(f"table of the study file {path.name}", values, list(_TABLES))
    for name, kind in _TABLES.items():
        table = values.setdefault(name, kind())
        if not isinstance(table, kind) or any(type(t) is not dict for t in table if kind is list):
            wanted = "[[cells]], with two brackets," if kind is list else f"[{name}]"
            raise ConfigError(f"expected {wanted} in {path} to be a table, got {shown(table)}.")
    study, axes, cells = (values[name] for name in _TABLES)
    _check_names(f"key of [study] in {path.name}", study, (*own, *_OF_RUN, *_PATHS))
    if not axes and not cells:
        raise ConfigError(f"expected [axes] or [[cells]] in {path}, got neither.")
    folder = path.parent
    grid = {name: _located(name, study[name], folder) for name in own if name in study}
    grid["axes"] = {
        name: [_located(name, v, folder) for v in values] if isinstance(values, list) else values
        for name, values in _flat(axes).items()
    }
    grid["cells"] = [
        {name: _located(name, value, folder) for name, value in _flat(cell).items()}
        for cell in cells
    ]
    grid.setdefault("name", path.stem)
    return StudyFile(
        grid=grid,
        run={name: study[name] for name in _OF_RUN if name in study},
        **{n: folder / read(str, study[n], f"[study] {n}") for n in _PATHS if n in study},
    )


def _check_names(kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UnknownNameError.of(kind, name, known)


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted names: TOML reads ``scorer.aggregate = […]`` as a table in a table.

    A table with a ``name`` or ``recipe`` describes a value and is left unchanged.
    """
    found: dict[str, Any] = {}
    for name, value in table.items():
        describes = isinstance(value, Mapping) and {"name", "recipe", "spec", "source"} & set(value)
        if isinstance(value, Mapping) and not describes:
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _located(name: str, value: Any, folder: Path) -> Any:
    """A path relative to the study file, as one that is valid here."""
    if name not in ("base", "model", "data", "against"):
        return value
    if isinstance(value, Mapping):
        paths = ("spec", "checkpoint", "source")
        return {k: _located(name, v, folder) if k in paths else v for k, v in value.items()}
    return located(value, folder) if isinstance(value, str) else value
