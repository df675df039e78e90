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

    Attributes:
        size: number of images known to fit; None while all batches have fitted.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def __call__(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The results ``(b, …)`` of ``run`` for images ``(b, …)``.

        Raises:
            RuntimeError: as raised by ``run``: out of memory with a single image, or any other.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(images):
            portion = images[start : start + (self.size or len(images))]
            result = self._try(run, portion)
            if result is None:
                self.size = (len(portion) + 1) // 2
                warnings.warn(
                    f"out of memory with {len(portion)} images at once; continuing with "
                    f"{self.size}. Set batch_size={self.size} to avoid the retry.",
                    stacklevel=3,
                )
                _release()
            else:
                results.append(result)
                start += len(portion)
        return results[0] if len(results) == 1 else torch.cat(results)

    @staticmethod
    def _try(run: Callable[[Tensor], Tensor], portion: Tensor) -> Tensor | None:
        """The result, or None if memory ran out; the error's frames are then released."""
        try:
            return run(portion)
        except (RuntimeError, MemoryError) as error:
            if len(portion) == 1 or not is_out_of_memory(error):
                raise
            return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SAYINGS)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
