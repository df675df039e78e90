"""Too little memory for a batch: it is redone in halves, and the run goes on."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Portions", "is_out_of_memory"]

# What allocators other than CUDA's say in a plain RuntimeError: the CPU's on Linux and on Windows,
# and Apple's.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")


class Portions:
    """Runs batches in portions that fit into memory.

    A batch goes in one piece until one does not fit. What failed is redone in halves, and halves
    of those, with a warning each time; later batches stay at the size that worked. Images do not
    influence each other, so the results are the same.

    Attributes:
        size: images at once that are known to be few enough; None while all have fitted.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def __call__(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The results ``(b, …)`` of ``run`` for images ``(b, …)``.

        Raises:
            RuntimeError: as ``run`` raises it: out of memory with a single image, or another.
        """
        results: list[Tensor] = []
        start = 0
        while start < len(images):
            portion = images[start : start + (self.size or len(images))]
            result = self._try(run, portion)
            if result is None:
                self.size = (len(portion) + 1) // 2
                warnings.warn(
                    f"out of memory with {len(portion)} images at once; going on with "
                    f"{self.size}. A batch_size of {self.size} avoids the detour.",
                    stacklevel=3,
                )
                _release()
            else:
                results.append(result)
                start += len(portion)
        return results[0] if len(results) == 1 else torch.cat(results)

    @staticmethod
    def _try(run: Callable[[Tensor], Tensor], portion: Tensor) -> Tensor | None:
        """The result, or None where memory ran out; by then the error's frames are gone."""
        try:
            return run(portion)
        except (RuntimeError, MemoryError) as error:
            if len(portion) == 1 or not is_out_of_memory(error):
                raise
            return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SAYINGS)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
