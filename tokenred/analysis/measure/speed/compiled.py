"""Models as `torch.compile` runs them, for the length of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tokenred.core.errors import ConfigError

__all__ = ["MODES", "check_compile", "runnable", "settle"]

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_RUNS = 3  # compiled at the first, CUDA graphs recorded at the second
_LIMIT = 1024

Runs = Callable[[Tensor], object]


def check_compile(mode: bool | str) -> None:
    """Refuse a mode that torch.compile does not know.

    Raises:
        ConfigError: with those that it knows.
    """
    if not isinstance(mode, bool) and mode not in MODES:
        raise ConfigError(
            f"expected compile as true, false or one of {', '.join(MODES)}, got {mode!r}."
        )


@contextmanager
def runnable(models: Mapping[int, nn.Module], mode: bool | str) -> Iterator[dict[int, Runs]]:
    """The models as they are to run: themselves, or compiled as whole graphs of fixed shapes.

    Args:
        models: by any key.
        mode: False, True, or a mode of torch.compile.
    """
    if mode is False:
        yield dict(models)
        return
    name = None if mode is True else str(mode)
    # All wrapped models share their code, and dynamo counts compilations by code: its limit of 8
    # would refuse the ninth candidate.
    with torch._dynamo.config.patch(recompile_limit=_LIMIT, accumulated_recompile_limit=_LIMIT):
        yield {
            key: _step(torch.compile(model, fullgraph=True, dynamic=False, mode=name))
            for key, model in models.items()
        }


def _step(model: Runs) -> Runs:
    def run(images: Tensor) -> object:
        # Models take turns; each run is a step of its own for CUDA graphs.
        torch.compiler.cudagraph_mark_step_begin()
        return model(images)

    return run


def settle(runs: Mapping[int, Runs], images: Tensor) -> None:
    """Run each compiled model until nothing is compiled any more.

    Raises:
        ConfigError: where one cannot be compiled.
    """
    for run in runs.values():
        try:
            for _ in range(_RUNS):
                run(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()
            raise ConfigError(
                f"torch.compile failed ({type(error).__name__}: {reason[0] if reason else ''}); "
                "leave compile out, or mend the compiler that it needs."
            ) from error
