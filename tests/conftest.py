"""What every test is given without asking."""

from collections import Counter
from collections.abc import Iterator

import pytest

from tokenred.core.registry import KINDS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Coverage, which halves the speed, watches one in four cases of each test that is not slow."""
    if not config.pluginmanager.hasplugin("_cov"):
        return
    cases: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if cases[test] % 4 or item.get_closest_marker("slow"):
            item.add_marker("no_cover")
        cases[test] += 1


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
