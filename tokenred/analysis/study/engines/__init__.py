"""Engines: where the cells of a grid run."""

from __future__ import annotations

from typing import Any

from tokenred.analysis.study.engines.base import Engine, Serial
from tokenred.core.errors import ConfigError, UnknownNameError, shown
from tokenred.core.values import Count, Magnitude, Size, checked

__all__ = ["ENGINES", "Engine", "pick_engine"]

ENGINES = ("serial", "processes", "ray")


@checked
def pick_engine(
    given: str | Engine | Any,
    *,
    workers: Size | None = None,
    threads: Size | None = None,
    address: str | None = None,
    retries: Count = 2,
    gpus: Magnitude = 0.0,
) -> Engine:
    """The engine.

    Args:
        given: ``"serial"``, ``"processes"``, ``"ray"``; an `Engine`; or anything with ``submit``,
            such as an executor of ``concurrent.futures`` or Dask's client.
        workers, threads: see the engines.
        address: of a Ray cluster.
        retries: how often a cell may be started again after its worker died.
        gpus: of each of Ray's tasks.

    Raises:
        UnknownNameError: for another name.
        ConfigError: for numbers out of range, or anything else.
        MissingExtraError: for Ray where it is not installed.
    """
    if address is not None and given != "ray":
        raise ConfigError(
            f"an address is for engine='ray', got engine={shown(given)}; leave it out."
        )
    if isinstance(given, Engine):
        return given
    if given == "serial":
        return Serial(threads)
    if given == "processes":
        from tokenred.analysis.study.engines.processes import Processes

        return Processes(workers, threads, retries)
    if given == "ray":
        from tokenred.analysis.study.engines.ray import Ray

        return Ray(workers, threads, address, retries, gpus)
    if callable(getattr(given, "submit", None)):
        from tokenred.analysis.study.engines.pool import Executor

        return Executor(given, retries)
    if isinstance(given, str):
        raise UnknownNameError.of("engine", given, ENGINES)
    raise ConfigError(
        f"expected an engine: {', '.join(ENGINES)}, or an object with submit(), got {shown(given)}."
    )
