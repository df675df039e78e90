"""Verdicts."""

from __future__ import annotations

import pytest

from tokenred.analysis.reproduction.judging import DIFFERS, MEASURED, OWED, REPRODUCED, judge


@pytest.mark.parametrize(
    ("metric", "ours", "published", "mark"),
    [
        ("gmacs", 3.56, 3.4, REPRODUCED),
        ("gmacs", 3.57, 3.4, DIFFERS),
        ("top1", 79.2, 79.5, REPRODUCED),
        ("top1", 79.19, 79.5, DIFFERS),
        ("top1", 79.81, 79.5, DIFFERS),
        ("loss", -0.6, -0.3, REPRODUCED),
        ("loss", 0.1, -0.3, DIFFERS),
        ("speedup", 1.2, 1.3, MEASURED),
        ("top1", 79.5, None, MEASURED),
        ("top1", None, 79.5, OWED),
    ],
)
def test_verdicts(metric: str, ours: float | None, published: float | None, mark: str) -> None:
    assert judge(metric, ours, published).mark == mark


def test_a_part_of_the_images_widens_accuracies_only() -> None:
    assert judge("top1", 81.0, 79.5, sampling=1.2).mark == REPRODUCED
    assert judge("top1", 81.01, 79.5, sampling=1.2).mark == DIFFERS
    assert judge("top1", 81.0, 79.5, sampling=1.2).tolerance == pytest.approx(1.5)
    assert judge("gmacs", 4.0, 3.4, sampling=1.2).mark == DIFFERS


def test_the_cost_of_a_group_is_coarser() -> None:
    assert judge("gmacs", 13.33, 13.1, group=True).mark == REPRODUCED
    assert judge("gmacs", 13.33, 13.1).mark == DIFFERS
    assert judge("gmacs", 13.41, 13.1, group=True).mark == DIFFERS
