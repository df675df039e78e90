"""What every test is given without asking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tokenred.attention import score_mods
from tokenred.core.registry import Registry
from tokenred.graphs.base import graph_builders
from tokenred.strategies.base import embeddings, fusers, routers, scorers, selectors
from tokenred.strategies.schedules import schedules
from tokenred.strategies.strategy import recipes

REGISTRIES: tuple[Registry, ...] = (
    score_mods, embeddings, fusers, graph_builders, recipes, routers, scorers, schedules,
    selectors,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _what_a_test_registers_leaves_with_it() -> Iterator[None]:
    for registry in REGISTRIES:
        registry.names()  # so that the built-in ones are in before the copy is made
    before = [dict(registry._entries) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._entries = entries
