"""Ray: tasks on this machine or on a cluster, started again by Ray itself where a worker dies."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenred.analysis.study.cell import EngineError
from tokenred.analysis.study.engines.base import usable_cores, variables
from tokenred.analysis.study.engines.parcel import Parcel, run_batch
from tokenred.analysis.study.engines.pool import Pool, Submit
from tokenred.core.errors import MissingExtraError

__all__ = ["Ray", "import_ray"]

# Of a cluster that is started here: it tells nobody, and its workers count as much as others.
_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def import_ray() -> Any:
    """The module.

    Raises:
        MissingExtraError: where it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about itself and its own dependencies
            import ray
    except ImportError as error:
        raise MissingExtraError(
            "the engine 'ray' needs Ray, which is not installed: pip install 'tokenred[ray]', or "
            "choose engine='processes'."
        ) from error
    return ray


class Ray(Pool):
    """Runs cells as tasks of Ray.

    Args:
        workers: tasks at a time; None for as many as the cluster has cores for.
        threads: CPU threads of each; None for 1.
        address: of a cluster (``"auto"``, ``"ray://host:10001"``); None for the one that this
            process is connected to, or one that is started here.
        retries: how often a cell may be started again after its worker died.
        gpus: of each task; a share such as 0.5 lets two of them use one.
    """

    name = "ray"

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        address: str | None = None,
        retries: int = 2,
        gpus: float = 0,
    ) -> None:
        self._ray = import_ray()
        self._workers = workers
        self._threads = threads or 1
        self._address = address
        self._gpus = gpus
        super().__init__(0, workers or 1)
        self.tries = retries + 1

    @contextmanager
    def opened(self, runner: Parcel) -> Iterator[Submit]:
        ray, own = self._ray, not self._ray.is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about changes that Ray plans
            if own:
                self._connect()
            try:
                cores = int(ray.cluster_resources().get("CPU", 1))
                self._at_once = self._workers or max(1, cores // self._threads)
                task = ray.remote(
                    num_cpus=self._threads, num_gpus=self._gpus, max_retries=self.tries - 1
                )(run_batch)
                setup = ray.put(runner)
                yield lambda batch: task.remote(setup, batch, self._threads).future()
            finally:
                if own:
                    ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is not None:
            options["address"] = self._address
        else:
            wanted = (self._workers or 1) * self._threads
            options |= {"num_cpus": max(wanted, usable_cores()), "include_dashboard": False}
        try:
            with variables({} if self._address else _LOCAL):
                self._ray.init(**options)
        except Exception as error:
            place = self._address or "this machine"
            raise EngineError(
                f"cannot start or reach Ray on {place} ({type(error).__name__}: {error}); check "
                "the address, or choose engine='processes'."
            ) from error
