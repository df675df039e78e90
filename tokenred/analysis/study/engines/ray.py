"""Ray: actors on this machine or on a cluster."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tokenred.analysis.study.cell import Outcome, Task
from tokenred.analysis.study.engines.base import Engine, Run, Tasks, usable_cores
from tokenred.analysis.study.engines.batches import BatchSize
from tokenred.analysis.study.engines.remote import read_batch, run_batch
from tokenred.analysis.study.errors import EngineError
from tokenred.analysis.study.payload import pack, pack_tasks
from tokenred.analysis.study.worker import failure
from tokenred.core.errors import MissingExtraError

__all__ = ["Ray", "import_ray"]

_FALSE_STARTS = 3
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


@contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment for the length of the block, where they are not set already."""
    fresh = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)


class Actor:
    """Lives on a worker; keeps models and images loaded between batches."""

    def __init__(self, runner: bytes, digest: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._setup = (runner, digest)

    def run(self, tasks: bytes) -> bytes:
        return run_batch(*self._setup, tasks)


class Ray(Engine):
    """Runs cells in Ray actors. An actor that is killed is replaced, its cells started again.

    Args:
        workers: actors; None for as many as the cluster has cores for.
        threads: CPU threads of each; None for 1.
        address: of a cluster (``"auto"``, ``"ray://host:10001"``); None for the one that this
            process is connected to, or one that is started here.
        retries: how often a cell may be started again after its actor died.
        gpus: of each actor; a share such as 0.5 lets two actors use one.
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
        self._retries = retries
        self._gpus = gpus

    def run(self, runner: Run, tasks: Iterator[Task], modules: set[str]) -> Iterator[list[Outcome]]:
        packed = pack(runner, modules)
        todo = Tasks(tasks, self._retries)
        with self._cluster() as count:
            crew = _Crew(self._ray, packed, self._threads, self._gpus)
            try:
                # No more actors than there are tasks.
                first = [task for _ in range(count) for task in todo.take()]
                todo.put_back(first)
                for _ in first:
                    crew.hire()
                while crew.hands:
                    if outcomes := crew.collect(todo):
                        yield todo.finished(outcomes)
            finally:
                crew.stop()

    @contextmanager
    def _cluster(self) -> Iterator[int]:
        """A cluster to work on; gives the number of actors."""
        ray, own = self._ray, not self._ray.is_initialized()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about changes that Ray plans
            if own:
                self._connect()
            try:
                cores = int(ray.cluster_resources().get("CPU", 1))
                yield self._workers or max(1, cores // self._threads)
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
            with _variables({} if self._address else _LOCAL):
                self._ray.init(**options)
        except Exception as error:
            place = self._address or "this machine"
            raise EngineError(
                f"cannot start or reach Ray on {place} ({type(error).__name__}: {error}); check "
                "the address, or choose engine='processes'."
            ) from error


@dataclass(eq=False)
class _Hand:
    """An actor, and the batches that were sent to it, oldest first."""

    actor: Any
    batches: dict[Any, list[Task]] = field(default_factory=dict)
    size: BatchSize = field(default_factory=BatchSize)
    proven: bool = False


class _Crew:
    """Actors that are hired, given batches, and replaced."""

    def __init__(self, ray: Any, runner: bytes, threads: int, gpus: float) -> None:
        self.hands: list[_Hand] = []
        self._ray = ray
        self._setup = (ray.put(runner), hashlib.sha256(runner).hexdigest(), threads)
        self._make = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(Actor)
        self._false_starts = 0

    def hire(self) -> None:
        """Start an actor; an empty batch says when it is ready."""
        self.hands.append(_Hand(self._make.remote(*self._setup)))
        self._send(self.hands[-1], [])

    def collect(self, todo: Tasks) -> list[Outcome]:
        """Wait for a batch, take all that are there, and send new ones."""
        owners = {ref: hand for hand in self.hands for ref in hand.batches}
        self._ray.wait(list(owners), num_returns=1)
        ready, _ = self._ray.wait(list(owners), num_returns=len(owners), timeout=0)
        outcomes: list[Outcome] = []
        for ref, hand in owners.items():
            if ref not in ready or hand not in self.hands:
                continue
            try:
                found, seconds = read_batch(self._ray.get(ref))
            except self._ray.exceptions.RayActorError as error:
                outcomes += self._lost(hand, error, todo)
            except Exception as error:
                outcomes += self._refused(hand, hand.batches.pop(ref), error)
            else:
                if hand.batches.pop(ref):
                    hand.size.learn(len(found), seconds)
                outcomes += found
            if hand in self.hands:
                hand.proven = True
                outcomes += self._fill(hand, todo)
        return outcomes

    def stop(self) -> None:
        """End all actors at once."""
        for hand in self.hands:
            self._ray.kill(hand.actor)
        self.hands = []

    def _fill(self, hand: _Hand, todo: Tasks) -> list[Outcome]:
        bad: list[Outcome] = []
        # Where cells are short one batch waits while another runs, so that no time is lost.
        while len(hand.batches) < (1 if hand.size.size == 1 else 2):
            if not (batch := todo.take(hand.size.size)):
                break
            try:
                self._send(hand, batch)
            except Exception as error:  # whatever a part's objects raise when they are packed
                bad += [failure(task.key, error) for task in batch]
        if not hand.batches:
            self._ray.kill(hand.actor)
            self.hands.remove(hand)
        return bad

    def _send(self, hand: _Hand, batch: list[Task]) -> None:
        hand.batches[hand.actor.run.remote(pack_tasks(batch))] = batch

    def _refused(self, hand: _Hand, batch: list[Task], error: Exception) -> list[Outcome]:
        """A batch that raised outside its cells: it, or the runner, could not be read."""
        if not hand.proven:
            raise EngineError(f"Ray's workers cannot start: {error}") from error
        return [failure(task.key, error) for task in batch]

    def _lost(self, hand: _Hand, error: Exception, todo: Tasks) -> list[Outcome]:
        """What follows from an actor's death: the oldest batch was running, the others waited."""
        self.hands.remove(hand)
        running, *waiting = hand.batches.values()
        outcomes: list[Outcome] = []
        if hand.proven:
            outcomes = todo.died(running, str(error).strip().splitlines()[0])
        else:
            self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS:
                raise EngineError(
                    f"{_FALSE_STARTS} Ray actors died before they were ready: {error}"
                ) from error
        for batch in waiting:
            todo.put_back(batch)
        first = todo.take()
        todo.put_back(first)
        if first or not hand.proven:
            self.hire()
        return outcomes
