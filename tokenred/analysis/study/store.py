"""The embedded store of results: one SQLite file, one writer, many readers."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from tokenred.analysis.study.database import StoreError, explained, open_file, transaction
from tokenred.analysis.study.rows import Predictions, record, tidy, unpack
from tokenred.core.errors import InputError, TokenredError, UnknownNameError
from tokenred.core.lock import process_lock

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.measure.intervals import Interval
    from tokenred.strategies.strategy import Strategy

_PLANNED, _CELLS = "cells of ", "axes of "  # of the stamps of plans


class Store:
    """Results of grids, in one file that stays intact if the process is killed.

    Rows are found by their key: a digest of everything that determines a result. A finished row is
    never written again. Reading needs no lock; several processes may read while one writes.

    Args:
        path: path of the file, which is created if missing. None keeps everything in memory.
        readonly: never change the file, and refuse a missing one.

    Raises:
        StoreError: for a file that is not a store, that another version of tokenred wrote, or that
            cannot be opened.
    """

    def __init__(self, path: str | Path | None = None, *, readonly: bool = False) -> None:
        self.path = None if path is None else Path(path).expanduser()
        # SQLite needs the file and its folder.
        needed = [p for p in (self.path, self.path and self.path.parent) if p and p.exists()]
        self.readonly = readonly or not all(os.access(place, os.W_OK) for place in needed)
        self._connection = open_file(self.path, self.readonly)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        (count,) = self._ask("SELECT count(*) FROM results")[0]
        return int(count)

    def __repr__(self) -> str:
        return f"Store({None if self.path is None else str(self.path)!r}, results={len(self)})"

    @contextmanager
    def writing(self, wait: float = 0.0) -> Iterator[None]:
        """Be the only writer for the length of the block.

        Raises:
            StoreError: if another grid is still writing after ``wait`` seconds, or the store cannot
                be written.
        """
        if self.readonly:
            raise StoreError(
                f"{self.path} can only be read: it was opened that way, or its permissions or "
                "those of its folder require it. Choose another store."
            )
        if self.path is None:
            yield
            return

        def busy(holder: str) -> StoreError:
            return StoreError(
                f"another grid is writing to {self.path}{holder}. Pass wait=SECONDS to "
                "wait for it, or choose another store. Stored results can be read meanwhile."
            )

        place = self.path.with_name(f"{self.path.name}.lock")
        with explained(f"cannot make the lock {place}"), process_lock(place, busy, wait):
            try:
                yield
            finally:
                # Into the file itself, so that it can be copied alone; the log is safe as well.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store results: all of them or, on failure, none.

        Args:
            rows: as `rows` gives them; under ``packed`` the predictions, if there are any.

        Raises:
            StoreError: for a full disk, or a file that cannot be written.
        """
        if not rows:
            return
        with self._changing():
            for row in rows:
                told = {name: v for name, v in row.items() if name not in ("axes", "packed")}
                changed = self._connection.execute(
                    "INSERT INTO results VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                    "status = excluded.status, axes = excluded.axes, row = excluded.row "
                    "WHERE results.status != 'done'",
                    (row["key"], row["status"], _json(row["axes"]), _json(told)),
                ).rowcount
                if changed and (packed := row.get("packed")) is not None:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO images VALUES (?, ?, ?)", packed[:3]
                    )
                    self._connection.execute(
                        "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?)",
                        (row["key"], packed[0], packed[3]),
                    )

    def set_axes(self, axes: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Replace the axis values of some keys, given as pairs of key and values by name."""
        rows = [(_json(values), key) for key, values in axes]
        self._do("UPDATE results SET axes = ? WHERE key = ?", rows)

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Store facts by their stamps, see `fact`."""
        rows = [(stamp, json.dumps(value)) for stamp, value in facts.items()]
        self._do("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def plan(
        self, study: str, keys: Sequence[str], cells: Iterable[tuple[str, Any, str]] = ()
    ) -> None:
        """Store which results a study is going to have, for `missing`, and its `cells`.

        Args:
            study: its name.
            keys: of its results.
            cells: key, axis values and strategy of each; several may have one result.
        """
        found = [[key, json.loads(_json(axes)), name] for key, axes, name in cells]
        told = {_PLANNED + study: list(keys), _CELLS + study: found}
        self.remember({stamp: value for stamp, value in told.items() if self.fact(stamp) != value})

    def missing(self) -> int:
        """The number of planned results that are not there: a study was stopped, or still runs."""
        planned = set(self._planned(_PLANNED))
        return len(planned) - len(self.status(list(planned)))

    def cells(self) -> dict[str, list[dict[str, Any]]]:
        """``axes`` and ``strategy`` of all planned cells, by the key of their result."""
        found: dict[str, list[dict[str, Any]]] = {}
        for key, axes, name in self._planned(_CELLS):
            found.setdefault(key, []).append({"axes": axes, "strategy": name})
        return found

    def _planned(self, kind: str) -> Iterator[Any]:
        """What plans say, one entry after another."""
        rows = self._ask("SELECT value FROM facts WHERE stamp LIKE ?", (kind + "%",))
        return (each for (value,) in rows for each in json.loads(value))

    def _do(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            with self._changing():
                self._connection.executemany(statement, rows)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        what = f"cannot write to the store {self.path}; earlier results are kept"
        with explained(what), transaction(self._connection):
            yield

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with explained(f"cannot read the store {self.path}"):
            return self._connection.execute(query, values).fetchall()

    def _about(self, columns: str, keys: Sequence[str]) -> list[Any]:
        # More keys than SQLite takes parameters.
        query = f"SELECT {columns} FROM results WHERE key IN (SELECT value FROM json_each(?))"
        return self._ask(query, (json.dumps(list(keys)),))

    def fact(self, stamp: str) -> Any:
        """The fact stored under a stamp, or None."""
        found = self._ask("SELECT value FROM facts WHERE stamp = ?", (stamp,))
        return json.loads(found[0][0]) if found else None

    def status(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Status and axis values (JSON) of the keys that have a row."""
        return {key: (status, axes) for key, status, axes in self._about("key, status, axes", keys)}

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Stored results as plain dictionaries, in the order in which they were stored."""
        everything = "SELECT axes, row FROM results ORDER BY rowid"
        found = self._ask(everything) if keys is None else self._about("axes, row", keys)
        return ({"axes": json.loads(axes), **json.loads(row)} for axes, row in found)

    def frame(self) -> pd.DataFrame:
        """A tidy pandas frame: one row per result.

        The axes first, then strategy, method, model, data, settings, GMACs, metrics, status, and
        what produced the row.
        """
        rows = list(self.rows())
        axes = list(dict.fromkeys(name for row in rows for name in row["axes"]))
        return tidy([record(row) for row in rows], axes)

    def predictions(self, key: str) -> Predictions:
        """The predictions of a row's model.

        Args:
            key: of the row; or, if no other row fits, its strategy in any spelling, or its value on
                an axis, as tables print it.
        """
        found = self._ask(
            "SELECT labels, answers FROM predictions JOIN images ON images.digest = images "
            "WHERE key = ?",
            (self._key(key),),
        )
        if not found:
            raise InputError(f"no predictions were kept for {key}; run it with 'accuracy'.")
        labels, answers = found[0]
        return Predictions(**unpack(labels), **unpack(answers))

    def _key(self, name: str) -> str:
        if self.status([name]):
            return name
        rows = list(self.rows())
        strategies = [row["strategy"] for row in rows]
        fits = (
            [row for row in rows if row["strategy"] == name]
            or [row for row, own in zip(rows, map(_parsed, strategies), strict=True)
                if own and own == _parsed(name)]
            or [row for row in rows if name in map(str, row["axes"].values())]
        )  # fmt: skip
        if len(fits) > 1:  # baselines are the dense method on a model of their own
            fits = [row for row in fits if "model" not in row["axes"]] or fits
        if not fits:
            raise UnknownNameError.of(
                "strategy or key of this store", name, dict.fromkeys(strategies)
            )
        if len(fits) > 1:
            same = len({row["strategy"] for row in fits}) < len(fits)
            raise InputError(
                f"expected {'a key' if same else 'a strategy'}, because several rows fit {name!r}: "
                f"{', '.join(row['key' if same else 'strategy'] for row in fits)}; store.frame() "
                "says how they differ."
            )
        return str(fits[0]["key"])

    def compare(self, key_a: str, key_b: str, level: float = 0.95) -> Interval:
        """How much more accurate a is than b, as a proportion (0.01 is one percentage point).

        The keys are as for `predictions`. Refused unless both ran on the same images.
        """
        a, b = self.predictions(key_a), self.predictions(key_b)
        if a.index.tolist() != b.index.tolist() or a.label.tolist() != b.label.tolist():
            raise InputError(
                f"{key_a} and {key_b} were run on different images; compare rows of the same "
                "data, limit and seed."
            )
        from tokenred.analysis.measure.intervals import paired_difference

        return paired_difference(a.correct, b.correct, level)

    def comparisons(self, level: float = 0.95) -> dict[tuple[str, str], dict[str, Any]]:
        """The stored paired differences: fields of each interval by key and reference."""
        query = "SELECT key, reference, value FROM comparisons WHERE level = ?"
        return {(key, other): json.loads(value) for key, other, value in self._ask(query, (level,))}

    def references(self) -> list[tuple[str, str]]:
        """What grids compared with what: pairs of keys."""
        return [(a, b) for a, b in self._ask("SELECT DISTINCT key, reference FROM comparisons")]

    def difference(self, key: str, reference: str, level: float = 0.95) -> dict[str, float]:
        """How much more accurate one row is than another: looked up, or computed and stored.

        Returns:
            ``difference``, ``difference_low`` and ``difference_high`` in percentage points, and
            ``p_value``; nothing if no images are shared.
        """
        mark = (key, reference, level)
        query = "SELECT value FROM comparisons WHERE (key, reference, level) = (?, ?, ?)"
        if stored := self._ask(query, mark):
            found = json.loads(stored[0][0])
        else:
            try:
                found = asdict(self.compare(key, reference, level))
            except (InputError, UnknownNameError):  # one failed, or has no predictions
                return {}
            if not self.readonly:
                row = (*mark, json.dumps(found))
                self._do("INSERT OR REPLACE INTO comparisons VALUES (?, ?, ?, ?)", [row])
        bounds = {"difference": "difference", "difference_low": "low", "difference_high": "high"}
        return {n: 100 * found[own] for n, own in bounds.items()} | {"p_value": found["p_value"]}


def _parsed(name: str) -> tuple[Strategy, float | None] | None:
    """The strategy in a name, and its share of the cost; None if there is none."""
    from tokenred.strategies.specs import parse_spec

    try:
        spec = parse_spec(name)
    except TokenredError:
        return None
    return spec.strategy, spec.share


def _json(values: Mapping[str, Any]) -> str:
    """Text for SQLite, which is UTF-8: errors may name files that are not."""
    return json.dumps(dict(values), ensure_ascii=False).encode(errors="replace").decode()
