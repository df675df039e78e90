"""The embedded store of results: one SQLite file, one writer, many readers."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from tokenred.analysis.study.database import (
    StoreError,
    explained,
    may_write,
    open_store,
    transaction,
)
from tokenred.analysis.study.rows import Predictions, record, tidy, unpack
from tokenred.core.errors import InputError, UnknownNameError
from tokenred.core.lock import process_lock

if TYPE_CHECKING:
    import pandas as pd

    from tokenred.analysis.measure.intervals import Interval

_PLANNED = "cells of "  # of the stamps of plans
_CHUNK = 500  # SQLite takes at least 999 parameters


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
        self.readonly = readonly or not may_write(self.path)
        self._connection = open_store(self.path, self.readonly)
        self._settle_at = 0.0
        # By level: stored paired differences, and those computed since.
        self._kept: dict[float, dict[tuple[str, str], dict[str, Any]]] = {}
        self._fresh: list[tuple[str, str, Interval]] = []

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
                f"another grid is writing to {self.path}{holder}. Wait for it (wait=SECONDS; "
                "--wait on the command line), or choose another store. Stored results can be read "
                "meanwhile."
            )

        place = self.path.with_name(f"{self.path.name}.lock")
        with explained(f"cannot make the lock {place}"), process_lock(place, busy, wait):
            try:
                yield
            finally:
                self._settle(now=True)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store results: all of them or, on failure, none.

        Args:
            rows: the columns of the store by name, as `rows` gives them; under ``packed`` the
                predictions, if there are any.

        Raises:
            StoreError: for a full disk, or a file that cannot be written.
        """
        if not rows:
            return
        with self._changing():
            for row in rows:
                columns = {name: _stored(value) for name, value in row.items() if name != "packed"}
                names = ", ".join(columns)
                places = ", ".join(f":{name}" for name in columns)
                changes = ", ".join(f"{n} = excluded.{n}" for n in columns if n != "key")
                changed = self._connection.execute(
                    f"INSERT INTO results ({names}) VALUES ({places}) ON CONFLICT (key) DO UPDATE "
                    f"SET {changes} WHERE results.status != 'done'",
                    columns,
                ).rowcount
                if changed and (packed := row.get("packed")) is not None:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO images VALUES (?, ?, ?)",
                        (packed.images, packed.count, packed.labels),
                    )
                    self._connection.execute(
                        "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?)",
                        (row["key"], packed.images, packed.answers),
                    )

    def set_axes(self, axes: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Replace the axis values of some keys, given as pairs of key and values by name."""
        rows = [(json.dumps(dict(values)), key) for key, values in axes]
        self._do("UPDATE results SET axes = ? WHERE key = ?", rows)

    def remember(self, facts: Mapping[str, Any]) -> None:
        """Store facts by their stamps, see `fact`."""
        rows = [(stamp, json.dumps(value)) for stamp, value in facts.items()]
        self._do("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def plan(self, study: str, keys: Sequence[str]) -> None:
        """Store which results a study is going to have, for `missing`."""
        self.remember({_PLANNED + study: list(keys)})

    def missing(self) -> int:
        """The number of planned results that are not there: a study was stopped, or still runs."""
        rows = self._ask("SELECT value FROM facts WHERE stamp LIKE ?", (_PLANNED + "%",))
        planned = {key for (value,) in rows for key in json.loads(value)}
        return len(planned) - len(self.status(list(planned)))

    def keep_differences(self) -> None:
        """Store what `difference` computed, so that it need not be computed again."""
        rows = [(key, other, i.level, json.dumps(asdict(i))) for key, other, i in self._fresh]
        self._do("INSERT OR REPLACE INTO comparisons VALUES (?, ?, ?, ?)", rows)
        self._fresh = []

    def _do(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            with self._changing():
                self._connection.executemany(statement, rows)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with (
            explained(f"cannot write to the store {self.path}; earlier results are kept"),
            transaction(self._connection),
        ):
            yield
        self._settle()

    def _settle(self, now: bool = False) -> None:
        """Move what is committed into the file itself, so that it can be copied alone.

        Done so often that it takes 1% of the time; the rest is in the log next to it.
        """
        start = time.monotonic()
        if self.path is None or self.readonly or not (now or start >= self._settle_at):
            return
        with suppress(sqlite3.Error):  # it is safe in the log
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._settle_at = start + 100 * (time.monotonic() - start)

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with explained(f"cannot read the store {self.path}"):
            return self._connection.execute(query, values).fetchall()

    def _about(self, columns: str, keys: Sequence[str]) -> Iterator[Any]:
        for at in range(0, len(keys), _CHUNK):
            some = keys[at : at + _CHUNK]
            marks = ", ".join("?" * len(some))
            yield from self._ask(f"SELECT {columns} FROM results WHERE key IN ({marks})", some)

    def fact(self, stamp: str) -> Any:
        """The fact stored under a stamp, or None."""
        found = self._ask("SELECT value FROM facts WHERE stamp = ?", (stamp,))
        return json.loads(found[0][0]) if found else None

    def status(self, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Status and axis values (JSON) of the keys that have a row."""
        return {key: (status, axes) for key, status, axes in self._about("key, status, axes", keys)}

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Stored results as plain dictionaries, in the order in which they were stored."""
        if keys is None:
            found: Iterable[Any] = self._ask("SELECT * FROM results ORDER BY rowid")
        else:
            found = self._about("*", keys)
        names = [row[1] for row in self._ask("PRAGMA table_info(results)")]
        for values in found:
            row = dict(zip(names, values, strict=True))
            yield {**row, **{n: json.loads(row[n]) for n in ("axes", "metrics", "machine")}}

    def frame(self) -> pd.DataFrame:
        """A tidy pandas frame: one row per result.

        The axes first, then strategy, method, model, data, settings, GMACs, metrics, status, and
        what produced the row.
        """
        rows = list(self.rows())
        axes = list(dict.fromkeys(name for row in rows for name in row["axes"]))
        return tidy([record(row) for row in rows], axes)

    def predictions(self, key: str) -> Predictions:
        """The predictions of a row's model."""
        found = self._ask(
            "SELECT labels, answers FROM predictions JOIN images ON images.digest = images "
            "WHERE key = ?",
            (key,),
        )
        if not found:
            if not self.status([key]):
                known = [k for (k,) in self._ask("SELECT key FROM results LIMIT 5")]
                raise UnknownNameError.of("key of this store", key, known)
            raise InputError(f"no predictions were kept for {key}; run it with 'accuracy'.")
        labels, answers = found[0]
        return Predictions(**unpack(labels), **unpack(answers))

    def compare(self, key_a: str, key_b: str, level: float = 0.95) -> Interval:
        """How much more accurate a is than b; refused unless both ran on the same images."""
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

    def difference(self, key: str, reference: str, level: float = 0.95) -> dict[str, float]:
        """How much more accurate one row is than another: looked up if stored, otherwise computed.

        Returns:
            ``difference``, ``difference_low`` and ``difference_high`` in percentage points, and
            ``p_value``; nothing if no images are shared.
        """
        if level not in self._kept:
            self._kept[level] = self.comparisons(level)
        kept = self._kept[level]
        if (key, reference) not in kept:
            try:
                interval = self.compare(key, reference, level)
            except (InputError, UnknownNameError):  # one failed, or has no predictions
                return {}
            self._fresh.append((key, reference, interval))
            kept[key, reference] = asdict(interval)
        found = kept[key, reference]
        return {
            "difference": 100 * found["difference"],
            "difference_low": 100 * found["low"],
            "difference_high": 100 * found["high"],
            "p_value": found["p_value"],
        }


def _stored(value: Any) -> Any:
    """A value for SQLite, whose text is UTF-8: errors may name files that are not."""
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
