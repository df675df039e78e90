"""What is timed, and how: models by name, eager or compiled, random images, clocks."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenred.analysis.measure.machine import running, weight_type
from tokenred.backbones import adapt
from tokenred.core.errors import ConfigError, InputError, PartError, shown
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import Spec, StrategyLike, parse_spec

Candidate = nn.Module | StrategyLike
Runs = Callable[[Tensor], object]

_RUNS = 3  # compiled at the first, CUDA graphs recorded at the second
_LIMIT = 1024


def resize(model: nn.Module, size: tuple[int, int]) -> None:
    """Make a model take images of another (height, width), in place."""
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "img_size", None) == size:
        return
    patch = getattr(embed, "patch_size", (1, 1))
    if size[0] % patch[0] or size[1] % patch[1]:
        raise InputError(
            f"expected an image size in multiples of the patch {patch[0]}x{patch[1]}, got "
            f"{size[0]}x{size[1]}."
        )
    set_size = getattr(model, "set_input_size", None)
    if set_size is None:
        raise InputError(f"{type(model).__name__} supports only its own image size; omit it.")
    try:
        set_size(img_size=size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{type(model).__name__} does not support images of {size[0]}x{size[1]}: {error}."
        ) from error


def named_candidates(
    models: Candidate | Sequence[Candidate] | Mapping[str, Candidate], dense: nn.Module | None
) -> dict[str, nn.Module]:
    """The models to measure, by name; strategies are wrapped around ``dense``."""
    if isinstance(models, Candidate):
        models = [models]
    if not isinstance(models, Mapping):
        models = {_name(model, at, len(models)): model for at, model in enumerate(models)}
    if not models:
        raise ConfigError("expected at least one model to time, got none.")
    found: dict[str, nn.Module] = {}
    for name, model in models.items():
        if not isinstance(model, Candidate):
            raise PartError(f"expected a model or a strategy under {name!r}, got {shown(model)}.")
        if isinstance(model, ReducedViT):
            found[name] = model
        elif dense is None:
            raise ConfigError(
                f"{name!r} has no dense model to compare with. Pass dense=, or a model that was "
                "wrapped with tokenred.wrap."
            )
        else:
            found[name] = model if isinstance(model, nn.Module) else wrap(dense, model)
    return found


def _name(model: Candidate, at: int, count: int) -> str:
    if isinstance(model, str | Path | Spec):
        return parse_spec(model).label
    return "reduced" if count == 1 else f"{at}"


def image_shape_of(model: nn.Module, given: Sequence[int] | None = None) -> tuple[int, int, int]:
    """The shape ``(channels, height, width)`` given, or the model's own."""
    if given is not None:
        if len(given) != 3 or min(given) < 1:
            raise InputError(
                f"expected image_shape as (channels, height, width), got {tuple(given)}."
            )
        return int(given[0]), int(given[1]), int(given[2])
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    # timm before 1.0.16 has no in_chans; the projection of a deep stem does not see the image.
    proj = getattr(embed, "proj", None)
    channels: Any = getattr(model, "in_chans", None) or getattr(proj, "in_channels", 3)
    if size is None:
        raise InputError(
            f"the input size of {type(model).__name__} is unknown; "
            "pass image_shape=(channels, height, width)."
        )
    return int(channels), int(size[0]), int(size[1])


class Clock:
    """Points in time, and the seconds between them.

    On CUDA a mark is an event in the device's stream, which does not block; other accelerators are
    synchronised.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events = device.type == "cuda"

    def __call__(self, run: Runs, images: Tensor) -> float:
        """Seconds of one forward, starting from an idle device."""
        self._wait()
        begin = self.mark()
        run(images)
        return self.seconds(begin, self.mark())

    def mark(self) -> Any:
        """The current point in time."""
        if not self._events:
            self._wait()
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        # The device may differ from the current one.
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds from one mark to another; waits until both have passed."""
        if not self._events:
            return float(end - begin)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection during a run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def on_random_images(
    models: Iterable[nn.Module],
    bases: Sequence[nn.Module],
    image_shape: Sequence[int] | None,
    batch_size: int,
    *,
    threads: int | None,
    device: str | torch.device | None,
    amp: torch.dtype | None,
    seed: int,
) -> Iterator[Tensor]:
    """Models in eval and inference mode on a device, and a batch of random images there.

    ``bases`` are the dense models behind them, which say whether they take such images.
    """
    shape = image_shape_of(bases[0], image_shape)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((batch_size, *shape), generator=generator).to(weight_type(bases[0]))
    for base in bases:
        adapt(base).check_images(images)
    with (
        running(models, device, amp=amp, threads=threads, inference=True) as place,
        no_collection(),
    ):
        yield images.to(place)


@contextmanager
def runnable(
    models: Mapping[int, nn.Module], mode: bool | str, images: Tensor
) -> Iterator[dict[int, Runs]]:
    """The models to time, by any key: unchanged, or compiled as full graphs with fixed shapes.

    Compiled models have already run on the images.
    """
    if mode is False:
        yield dict(models)
        return
    name = None if mode is True else str(mode)
    # All wrapped models share their code, and dynamo counts compilations per code object: its
    # limit of 8 would refuse the ninth candidate.
    with torch._dynamo.config.patch(recompile_limit=_LIMIT, accumulated_recompile_limit=_LIMIT):
        runs = {
            key: _step(torch.compile(model, fullgraph=True, dynamic=False, mode=name))
            for key, model in models.items()
        }
        try:
            for run in runs.values():
                for _ in range(_RUNS):
                    run(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()
            raise ConfigError(
                f"torch.compile failed ({type(error).__name__}: {reason[0] if reason else ''}); "
                "omit compile, or fix the compiler that it needs."
            ) from error
        yield runs


def _step(model: Runs) -> Runs:
    def run(images: Tensor) -> object:
        # Models take turns; each run is a separate step for CUDA graphs.
        torch.compiler.cudagraph_mark_step_begin()
        return model(images)

    return run
