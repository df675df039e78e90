"""One evaluation over several processes, as started by ``torchrun``: shares and gathering.

The results are gathered over gloo on the CPU, on whatever device the models run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tokenred.core.errors import ConfigError, DataError, TokenredError

T = TypeVar("T")
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Ranks wait for the slowest, which may have much slower images or devices.
_PATIENCE = timedelta(hours=6)


@dataclass
class Shards:
    """The processes that evaluate together; possibly only one.

    Attributes:
        rank: the rank of this process, from 0.
        count: the number of processes.
        group: the process group; None for the default one.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Return the results of ``work`` from all processes, in order, in every process.

        Raises:
            Exception: if it fails in a process, the error raised there; in the others the same
                class (RuntimeError for errors that are not tokenred's) with its message.
        """
        if self.count == 1:
            return [work()]
        value: T | None = None
        failure: Exception | None = None
        try:
            value = work()
        except Exception as error:  # The other processes wait for an answer.
            failure = error
        answers: list[Any] = [None] * self.count
        dist.all_gather_object(answers, (value, _told(failure)), group=self.group)
        if failure is not None:
            raise failure
        for rank, (_, told) in enumerate(answers):
            if told is not None:
                kind, message = told
                raise kind(f"process {rank} of {self.count} failed: {message}")
        return [each for each, _ in answers]

    def local(self, work: Callable[[], T]) -> T:
        """The own result of ``work``; if it fails in one process, all fail as in `gather`."""
        kept: list[T] = []
        self.gather(lambda: kept.append(work()))
        return kept[0]

    def agree(self, settings: Callable[[], Mapping[str, object]]) -> None:
        """Refuse processes with different settings.

        Raises:
            DataError: for different ``data``.
            ConfigError: if other settings differ.
        """
        first, *others = self.gather(settings)
        for rank, theirs in enumerate(others, start=1):
            for name in sorted(first.keys() | theirs.keys()):
                if first.get(name) != theirs.get(name):
                    kind = DataError if name == "data" else ConfigError
                    raise kind(
                        f"expected the same {name} in all {self.count} processes, got "
                        f"{first.get(name)} in process 0 and {theirs.get(name)} in process {rank}; "
                        "use the same in all of them."
                    )

    def device(self, device: torch.device | None) -> torch.device | None:
        """The device of this process: ``cuda`` without a number means the GPU of its local rank."""
        if self.count == 1 or device is None or device.type != "cuda" or device.index is not None:
            return device
        local = int(os.environ.get("LOCAL_RANK", "0"))
        # If each process sees only its own GPU, that one is number 0.
        return torch.device("cuda", local if local < torch.cuda.device_count() else 0)


@contextmanager
def shards(wanted: bool | None = None) -> Iterator[Shards]:
    """The processes to share the work with.

    Args:
        wanted: False for this process alone; None for all processes of ``torch.distributed`` or of
            ``torchrun``'s environment variables; True to require several.

    Raises:
        ConfigError: for True if there are no others.
    """
    several = wanted is not False and dist.is_available()
    announced = all(name in os.environ for name in _VARIABLES)
    if several and not dist.is_initialized() and announced and int(os.environ["WORLD_SIZE"]) > 1:
        # Not shut down: a second start on the same address would find the keys of the first.
        dist.init_process_group("gloo", timeout=_PATIENCE)
    several = several and dist.is_initialized()
    found = Shards(dist.get_rank(), dist.get_world_size()) if several else Shards()
    if wanted and found.count == 1:
        raise ConfigError(
            "expected several processes to share the images, found this one alone; start them "
            "with torchrun --nproc-per-node=2 SCRIPT, or omit shard."
        )
    if found.count > 1 and dist.get_backend() != "gloo":
        found.group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield found
    finally:
        if found.group is not None:
            dist.destroy_process_group(found.group)


def _told(error: Exception | None) -> tuple[type[Exception], str] | None:
    if error is None or isinstance(error, TokenredError):
        return None if error is None else (type(error), str(error))
    return RuntimeError, f"{type(error).__name__}: {error}"
