"""Engines by name."""

from __future__ import annotations

import builtins
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tokenred.analysis.study.engines.futures import Futures
from tokenred.analysis.study.engines.pick import ENGINES, pick_engine
from tokenred.core.errors import ConfigError, MissingExtraError, UnknownNameError


@pytest.mark.parametrize("name", ENGINES)
def test_names(name: str) -> None:
    assert pick_engine(name, workers=1).name == name


def test_objects() -> None:
    engine = pick_engine("serial")
    assert pick_engine(engine) is engine
    with ThreadPoolExecutor(1) as executor:
        assert isinstance(pick_engine(executor), Futures)


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("proceses", {}, UnknownNameError, "Did you mean 'processes'"),
        (object(), {}, ConfigError, "with submit"),
        ("serial", {"workers": 0}, ConfigError, "workers"),
        ("serial", {"threads": 1.5}, ConfigError, "threads"),
        ("serial", {"retries": None}, ConfigError, "retries"),
        ("processes", {"address": "auto"}, ConfigError, "leave it out"),
    ],
)
def test_refused(given: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pick_engine(given, **options)


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray":
            raise ImportError("no ray here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'tokenred\[ray\]'"):
        pick_engine("ray")
