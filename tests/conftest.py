"""What every test is given without asking."""

from collections.abc import Iterator

import pytest

from tokenred.core.registry import KINDS


@pytest.fixture(autouse=True)
def _what_a_test_registers_leaves_with_it() -> Iterator[None]:
    for registry in KINDS.values():
        registry.names()  # so that the built-in ones are in before the copy is made
    before = [dict(registry._entries) for registry in KINDS.values()]
    yield
    for registry, entries in zip(KINDS.values(), before, strict=True):
        registry._entries = entries


@pytest.fixture(autouse=True)
def _nobody_says_how_wide_a_line_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # Libraries set it, and tables would go by it.
    monkeypatch.delenv("COLUMNS", raising=False)
