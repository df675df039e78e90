"""The machine of a measurement, and running models in eval mode on it."""

import gc
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from tokenred._version import __version__
from tokenred.core.errors import ConfigError
from tokenred.core.tensors import check_device, evaluating, state_digest
from tokenred.core.values import Size, read
from tokenred.reduced.model import ReducedViT

# Messages of allocators other than CUDA's in a plain RuntimeError: the CPU's on Linux and
# Windows, and Apple's.
_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory")


def describe_machine(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """The machine and the versions that a measurement depends on.

    Returns:
        ``device``, ``processor`` (the GPU's name, or the CPU's), ``cores`` (usable), ``threads``
        (PyTorch's), ``platform``, and the versions ``tokenred``, ``torch``, ``timm``, ``python``.
    """
    device = torch.device(device)
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "device": str(device),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": version("timm"),
        "tokenred": __version__,
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine() or "unknown"


def others_cpu_time() -> float:
    """Seconds of CPU time that other programs have used so far; 0 where the system does not say."""
    try:
        words = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    except OSError:
        return 0.0  # not Linux
    user, nice, system, _idle, _waiting, *rest = map(int, words[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - time.process_time()


def weights_digest(model: nn.Module) -> str:
    """16 hex digits of SHA-256 over names, types, shapes and values of a model's state."""
    return state_digest(model.state_dict())


def model_device(model: nn.Module) -> torch.device:
    """Where a model's weights are; the CPU for one without weights."""
    weight = next(model.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def weight_type(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights, which its images need as well."""
    weight = next(model.parameters(), None)
    return torch.float32 if weight is None else weight.dtype


def base_of(model: nn.Module) -> nn.Module:
    """The base of a `ReducedViT`, or what it was derived from; any other model itself."""
    if not isinstance(model, ReducedViT):
        return model
    base = getattr(model, "stands_for", model.base)
    assert isinstance(base, nn.Module)
    return base


def name_of(model: nn.Module) -> str:
    """What tables call a model: its name for `load_model` if it is known, or its class."""
    config = getattr(base_of(model), "pretrained_cfg", None)
    known = config.get("architecture") if isinstance(config, dict) else None
    return {"digits_vit": "digits"}.get(str(known), str(known or type(base_of(model)).__name__))


@contextmanager
def running(
    models: Iterable[nn.Module],
    device: str | torch.device | None,
    *,
    amp: torch.dtype | None = None,
    threads: int | None = None,
    inference: bool = False,
) -> Iterator[torch.device]:
    """Run models in eval mode on one device, without gradients, and restore them afterwards.

    Inference mode is faster, but tensors cached by a model cannot be used in training afterwards.

    Raises:
        ConfigError: for another precision, an invalid number of threads, or a missing device.
    """
    if amp not in (None, torch.bfloat16, torch.float16):
        raise ConfigError(f"expected amp as torch.bfloat16 or torch.float16, got {amp!r}.")
    target = None if device is None else check_device(device)
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(threads))
        for model in models:
            place = stack.enter_context(measured(model, target))
        stack.enter_context(torch.inference_mode() if inference else torch.no_grad())
        if amp is not None:
            stack.enter_context(torch.autocast(place.type, dtype=amp))
        yield place


@contextmanager
def measured(model: nn.Module, device: torch.device | None) -> Iterator[torch.device]:
    """Eval mode, on ``device`` (None: unchanged); restores both for every submodule."""
    # A ReducedViT contains its base's children, but not the base itself.
    own = model.base if isinstance(model, ReducedViT) else model
    home = model_device(model)
    # A baseline shares most weights with its model. If that was moved just before, the shared
    # ones are already on the device, and the others are not.
    places = [
        (module, name, tensor.device)
        for module in {*own.modules(), *model.modules()}
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]
    target = home if device is None else device
    with evaluating(model):
        try:
            model.to(target)
            yield target
        finally:
            model.to(home)
            for module, name, place in places:
                tensor = getattr(module, name)
                if tensor.device != place:
                    tensor.data = tensor.data.to(place)


@contextmanager
def channels_last(models: Iterable[nn.Module], wanted: bool = True) -> Iterator[None]:
    """Store the weights of convolutions as NHWC; the original tensors are restored afterwards."""
    weights = {p: p.data for model in models for p in model.parameters() if wanted and p.ndim == 4}
    for weight, data in weights.items():
        weight.data = data.contiguous(memory_format=torch.channels_last)
    try:
        yield
    finally:
        for weight, data in weights.items():
            weight.data = data


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's CPU threads (None for no change), and restore them afterwards."""
    count = read(Size | None, count, "threads")
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


class Portions:
    """Runs batches in portions that fit into memory.

    Full batches are used until one does not fit. It is then repeated in halves, and halves of
    those, with a warning each time; later batches keep the size that worked.
    """

    def __init__(self) -> None:
        self._size: int | None = None

    def __call__(self, run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The results ``(b, …)`` of ``run`` for images ``(b, …)``."""
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
