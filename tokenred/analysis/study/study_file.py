"""Study files: a grid and how to run it, as TOML."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenred.analysis.study.grid import Grid
from tokenred.core.errors import ConfigError, UnknownNameError, shown
from tokenred.core.files import exists
from tokenred.core.values import parameters_of, read

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["StudyFile", "read_study"]

_OF_GRID = tuple(parameters_of(Grid).keys() - {"axes", "cells", "where"})
_OF_RUN = ("engine", "workers", "threads", "address", "gpus", "retries")
_TABLES = ("study", "axes", "cells")
_PATHS = ("store", "output")
# Never a folder of that name.
_NAMED = ("digits", "cifar10", "dense")
_CIFAR10 = "cifar10:"


@dataclass
class StudyFile:
    """What a study file says.

    Attributes:
        grid: arguments of `tokenred.analysis.Grid`.
        run: arguments of `Grid.run`.
        store: where the results go, or None.
        output: a CSV file, or None.
    """

    grid: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    store: Path | None = None
    output: Path | None = None

    def make_grid(self) -> Grid:
        """The grid.

        Raises:
            TokenredError: as `tokenred.analysis.Grid` raises them.
        """
        return Grid(**self.grid)


def read_study(path: str | Path) -> StudyFile:
    """Read a study file. Paths in it are taken from the folder that it lies in.

    Args:
        path: of a TOML file with the tables ``[study]`` and ``[axes]``, and any number of
            ``[[cells]]``.

    Raises:
        ConfigError: for a file that cannot be read, is no TOML, or has no axes and no cells.
        UnknownNameError: for keys and tables that are not known.
    """
    path = Path(path).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the study file {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    for name in values:
        if name not in _TABLES:
            raise UnknownNameError.of(f"table of the study file {path.name}", name, _TABLES)
    study = _table(values, "study", path)
    for name in study:
        if name not in (*_OF_GRID, *_OF_RUN, *_PATHS):
            known = (*_OF_GRID, *_OF_RUN, *_PATHS)
            raise UnknownNameError.of(f"key of [study] in {path.name}", name, known)
    axes = flat(_table(values, "axes", path))
    cells = values.get("cells", [])
    if not axes and not cells:
        raise ConfigError(f"expected [axes] or [[cells]] in {path}, got neither.")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ConfigError(f"expected [[cells]] in {path} with two brackets, a table a cell.")
    folder = path.parent
    grid = {name: study[name] for name in _OF_GRID if name in study}
    grid |= {n: _located(n, grid[n], folder) for n in ("base", "model", "data") if n in grid}
    grid["axes"] = {
        name: [_located(name, value, folder) for value in values] if isinstance(values, list)
        else values
        for name, values in axes.items()
    }  # fmt: skip
    grid["cells"] = [
        {name: _located(name, value, folder) for name, value in flat(cell).items()}
        for cell in cells
    ]
    grid.setdefault("name", path.stem)
    paths = {name: read(str, study[name], f"[study] {name}") for name in _PATHS if name in study}
    return StudyFile(
        grid=grid,
        run={name: study[name] for name in _OF_RUN if name in study},
        **{name: folder / path for name, path in paths.items()},
    )


def flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted names: TOML reads ``scorer.aggregate = […]`` as a table in a table.

    A table with a ``name`` or ``recipe`` describes a value and stays as it is.
    """
    found: dict[str, Any] = {}
    for name, value in table.items():
        describes = isinstance(value, Mapping) and {"name", "recipe", "spec", "source"} & set(value)
        if isinstance(value, Mapping) and not describes:
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _table(values: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = values.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"expected [{name}] in {path} to be a table, got {shown(found)}.")
    return found


def _located(name: str, value: Any, folder: Path) -> Any:
    """A path that lies beside the study file, as a path that holds here."""
    if name not in ("base", "model", "data"):
        return value
    if isinstance(value, Mapping):
        paths = ("spec", "checkpoint", "source")
        return {k: _located(name, v, folder) if k in paths else v for k, v in value.items()}
    if not isinstance(value, str) or value in _NAMED:
        return value
    prefix, path = (_CIFAR10, value[len(_CIFAR10) :]) if value.startswith(_CIFAR10) else ("", value)
    return f"{prefix}{folder / path}" if path and exists(folder / path) else value
