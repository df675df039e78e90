"""Where training runs (with accelerate for AMP and several processes), and its random numbers."""

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenred.core.errors import optional
from tokenred.core.tensors import check_device


class OneDevice:
    """What training uses of ``accelerate.Accelerator``, for one process in full precision."""

    process_index, num_processes = 0, 1
    scaler = None

    def __init__(self, device: str | None) -> None:
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = check_device(device or best)

    def prepare(self, module: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        return module, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: list[nn.Parameter], norm: float) -> None:
        nn.utils.clip_grad_norm_(parameters, norm)

    def reduce(self, values: Tensor, how: str) -> Tensor:
        return values

    def wait_for_everyone(self) -> None: ...


def pick_accelerator(amp: str, device: str | None) -> Any:
    """An ``Accelerator`` if mixed precision or several processes need one, or a `OneDevice`."""
    if amp == "no" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return OneDevice(device)
    purpose = "without amp='no' in one process, training needs accelerate"
    accelerate = optional("accelerate", "train", purpose)
    # Predictors have no gradient while nothing is removed.
    unused = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    return accelerate.Accelerator(
        mixed_precision=amp, cpu=device == "cpu", kwargs_handlers=[unused]
    )


def derive(*numbers: int) -> int:
    """A 32-bit seed derived from several numbers, different for different numbers."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=4).digest(), "big")


@contextmanager
def random_as(*numbers: int, devices: bool = False) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's generators inside the block, and restore them after it.

    The numbers, such as (seed, epoch, image), are all that the random numbers depend on, so that a
    run can resume anywhere. With ``devices``, accelerators are seeded as well.
    """
    seed = derive(*numbers)
    # timm uses NumPy's global generator.
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(None if devices else []):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        (torch if devices else torch.default_generator).manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
