"""The published figures, as the package brings them."""

from __future__ import annotations

from tokenred.analysis.plots.published import GTP_PAPER as REFERENCE
from tokenred.analysis.reproduction.published import dense_entry, entries, published_csv


def test_the_package_brings_the_reference() -> None:
    assert published_csv().read_bytes() == REFERENCE.read_bytes()


def test_every_number_is_in_an_entry() -> None:
    numbers = [float(line.rpartition(",")[2]) for line in REFERENCE.read_text().split()[1:]]
    found = [value for entry in entries() for value in entry.values.values()]
    assert len(numbers) > 400
    assert set(found) == set(numbers)
    tops = sum("top1_percent" in line for line in REFERENCE.read_text().splitlines())
    assert sum("top1" in entry.values for entry in entries()) == tops


def test_a_row_of_each_kind() -> None:
    (row,) = [e for e in entries("1", "DeiT-S") if e.P == 8]
    assert row.values == {"top1": 79.5, "gmacs": 3.4, "images_per_second": 1581.9}
    (row,) = [e for e in entries("5", "DeiT-B") if e.P == 8 and e.theta == "best"]
    assert (row.log_s, row.values) == (False, {"top1": 81.5})
    (row,) = [e for e in entries("release-notes") if e.P == 3]
    assert (row.theta, row.values) == ("0.9", {"top1": 81.76, "alpha": 0.4})


def test_a_speed_belongs_to_both_kinds_of_weights() -> None:
    rows = [e for e in entries("2") if e.method == "evit" and e.group == 3.5]
    assert [(e.finetuned, e.values) for e in rows] == [
        (True, {"images_per_second": 1600.5, "top1": 79.8}),
        (False, {"images_per_second": 1600.5, "top1": 79.2}),
    ]


def test_dense_models() -> None:
    assert dense_entry("DeiT-B").values["top1"] == 81.8  # type: ignore[union-attr]
    assert dense_entry("ViT-B-Patch8").values["images_per_second"] == 48.3  # type: ignore[union-attr]
    assert dense_entry("nothing") is None
