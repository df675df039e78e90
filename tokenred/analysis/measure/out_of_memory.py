"""Repeat a batch in halves if it does not fit into memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Portions", "is_out_of_memory"]

# Messages of allocators other than CUDA's in a plain RuntimeError: the CPU's on Linux and
# Windows, and Apple's.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")


class Portions:
    """Runs batches in portions that fit into memory.

    Full batches are used until one does not fit. It is then repeated in halves, and halves of
    those, with a warning each time; later batches keep the size that worked. Images do not
    influence each other, so the results are the same.
    """

    def __init__(self) -> None:
        self._size: int | None = None

    def __call__(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The results ``(b, …)`` of ``run`` for images ``(b, …)``.

        Raises:
            RuntimeError: as raised by ``run``: out of memory with a single image, or any other.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(images):
            portion = images[start : start + (self._size or len(images))]
            try:
                results.append(run(portion))
                start += len(portion)
                continue
            except (RuntimeError, MemoryError) as error:
                if len(portion) == 1 or not is_out_of_memory(error):
                    raise
            # Only here are the frames of the error released, with what they held.
            self._size = (len(portion) + 1) // 2
            warnings.warn(
                f"out of memory with {len(portion)} images at once; continuing with "
                f"{self._size}. Set batch_size={self._size} to avoid the retry.",
                stacklevel=3,
            )
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return results[0] if len(results) == 1 else torch.cat(results)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SAYINGS)
