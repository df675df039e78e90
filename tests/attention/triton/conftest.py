"""Kernels run here in a process of their own, under Triton's interpreter.

Triton decides at its import whether it interprets, and in this process something else may have
imported it.
"""

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def _worker() -> Iterator[ProcessPoolExecutor]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton, which comes with PyTorch for CUDA")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            # The process starts with its first task.
            assert pool.submit(os.getenv, "TRITON_INTERPRET").result() == "1"
        pool.submit(torch.set_num_threads, 1).result()
        yield pool


@pytest.fixture
def interpreted(_worker: ProcessPoolExecutor) -> Run:
    """``interpreted(check, *args)`` calls a function of `checks` where Triton interprets."""
    return lambda check, *args, **kwargs: _worker.submit(check, *args, **kwargs).result()
