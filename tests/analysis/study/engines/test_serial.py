"""In this process."""

from __future__ import annotations

import os

import torch

from tests.analysis.study.stubs import StubRunner, tasks
from tokenred.analysis.study.engines.serial import Serial


def test_one_after_the_other() -> None:
    stream = Serial().run(StubRunner(raises=("key1",)), tasks(3), set())
    found = [outcome for outcomes in stream for outcome in outcomes]
    assert [o.key for o in found] == ["key0", "key1", "key2"]
    assert [o.status for o in found] == ["done", "failed", "done"]
    assert found[0].metrics["process"] == os.getpid()


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    seen = []

    def run(task):  # type: ignore[no-untyped-def]
        seen.append(torch.get_num_threads())
        return StubRunner()(task)

    stream = Serial(threads=3).run(run, tasks(5), set())
    next(stream)
    stream.close()
    assert seen == [3]
    assert torch.get_num_threads() == before
