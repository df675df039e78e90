"""What produced the cells."""

from __future__ import annotations

from pathlib import Path

from tokenred._version import __version__
from tokenred.analysis.reporting.origins import origin_table, shared_facts
from tokenred.analysis.reporting.sources import read_source


def test_every_fact_is_told_once(store: Path) -> None:
    source = read_source(store)
    shared = dict(shared_facts(source))
    for name in ("model", "weights", "data", "seed", "dtype", "batch size", "device", "processor",
                 "python", "torch", "timm", "tokenred", "commit", "host"):  # fmt: skip
        assert name in shared or name == "commit", name
    assert shared["tokenred"] == __version__
    table, places = origin_table(source, "made")
    names = [column.name for column in table.columns]
    assert {"strategy's configuration", "strategy's fingerprint", "time", "seconds taken"} <= set(
        names
    )
    assert not set(names) & set(shared)
    assert len(table.rows) == len(places) == 6
    assert {row.anchor for row in table.rows} == set(places.values())


def test_the_configuration_is_whole(store: Path) -> None:
    source = read_source(store)
    table, _ = origin_table(source, "made")
    at = [column.name for column in table.columns].index("strategy's configuration")
    shown = [row.values[at].text for row in table.rows]
    assert shown == source.frame["config"].tolist()
    assert any("0.3" in text for text in shown)
