"""What an export tells, and how it fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tokenred.core.errors import TokenredError
from tokenred.export import ExportError, ExportReport


def test_a_report_is_a_value() -> None:
    values = (Path("m.pt2"), "torch", 1, None, None, (), 0, {}, {})
    assert ExportReport(*values) == ExportReport(*values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExportReport(*values).bytes = 2  # type: ignore[misc]


def test_the_error_is_one_of_ours_and_one_of_pythons() -> None:
    assert issubclass(ExportError, TokenredError)
    assert issubclass(ExportError, RuntimeError)
