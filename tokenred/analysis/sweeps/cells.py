"""The cells of a sweep: one setting, one strategy, against the dense model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenred.analysis.measure.candidates import DTYPES
from tokenred.analysis.measure.clock import Compile
from tokenred.core.errors import ConfigError
from tokenred.core.fingerprint import digest
from tokenred.core.values import Size, read
from tokenred.strategies.specs import Spec, StrategyLike, parse_spec

__all__ = ["Cell", "grid"]

_MACHINE = ("processor", "cores", "torch", "tokenred")


@dataclass(frozen=True)
class Cell:
    """What is measured once: a strategy on a model, in one setting.

    Attributes:
        model: name or path, for `tokenred.models.load_model`.
        spec: the strategy, and its name.
        batch_size: images per batch.
        image_size: (height, width); None for the model's own.
        dtype: number type of weights and images.
        compile: False, True, or a mode of ``torch.compile``.
        threads: CPU threads; None leaves them.
        device: where it runs.
    """

    model: str
    spec: Spec
    batch_size: int
    image_size: tuple[int, int] | None = None
    dtype: str = "float32"
    compile: bool | str = False
    threads: int | None = None
    device: str = "cpu"

    @property
    def settings(self) -> dict[str, Any]:
        """The cell as plain values."""
        size = self.image_size
        return {
            "model": self.model,
            "strategy": self.spec.label,
            "method": self.spec.method,
            "batch_size": self.batch_size,
            "image_size": None if size is None else f"{size[0]}x{size[1]}",
            "dtype": self.dtype,
            "compile": str(self.compile).lower(),
            "device": self.device,
        }

    def key(self, machine: dict[str, str | int], how: dict[str, Any]) -> str:
        """16 hex digits: the same for what would be the same measurement.

        Args:
            machine: see `tokenred.analysis.describe_machine`; a result belongs to one.
            how: what else the result hangs on: pairs, seed and so on.
        """
        parts = self.settings | how | {name: machine[name] for name in _MACHINE}
        parts |= {
            "threads": self.threads or machine["threads"],
            "fingerprint": self.spec.strategy.fingerprint(),
            "share": self.spec.share,
        }
        return digest("\n".join(f"{name}={value}" for name, value in sorted(parts.items())))

    def __str__(self) -> str:
        words = [self.model, self.spec.label, f"batch {self.batch_size}", self.dtype, self.device]
        if self.image_size is not None:
            words.append(f"images {self.image_size[0]}x{self.image_size[1]}")
        if self.compile:
            words.append("compiled" if self.compile is True else f"compiled, {self.compile}")
        if self.threads is not None:
            words.append(f"{self.threads} threads" if self.threads > 1 else "1 thread")
        return ", ".join(words)


def grid(
    models: str | Path | Sequence[str | Path],
    strategies: Sequence[StrategyLike],
    *,
    batch_sizes: Sequence[int],
    image_sizes: Sequence[int | tuple[int, int] | None],
    dtypes: Sequence[str],
    compile: Sequence[bool | str],
    threads: Sequence[int | None],
    devices: Sequence[str],
) -> tuple[Cell, ...]:
    """Every combination, those that share a model next to each other.

    Raises:
        ConfigError: for a value that is none of its kind, or none at all.
    """
    names = [str(m) for m in ([models] if isinstance(models, str | Path) else models)]
    if isinstance(strategies, StrategyLike):
        raise ConfigError(f"expected a list of strategies, got {strategies!r}; put it into [ ].")
    specs = [parse_spec(strategy) for strategy in strategies]
    for batch_size in batch_sizes:
        read(Size, batch_size, "batch_size")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ConfigError(f"expected a dtype among {', '.join(DTYPES)}, got {dtype!r}.")
    for mode in compile:
        read(Compile, mode, "compile")
    for count in threads:
        read(Size | None, count, "threads")
    sizes = [_size(size) for size in image_sizes]
    axes: dict[str, Sequence[Any]] = {
        "models": names, "image sizes": sizes, "dtypes": dtypes, "devices": devices,
        "compile": compile, "threads": threads, "batch sizes": batch_sizes, "strategies": specs,
    }  # fmt: skip
    for name, values in axes.items():
        if len(values) == 0:
            raise ConfigError(f"expected at least one of the {name}, got none.")
        if any(value in values[:at] for at, value in enumerate(values)):
            raise ConfigError(f"expected each of the {name} once, got {list(values)}.")
    return tuple(
        Cell(model, spec, batch, size, dtype, mode, count, device)
        for model, size, dtype, device, mode, count, batch, spec in itertools.product(
            *axes.values()
        )
    )


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2:
        raise ConfigError(f"expected an image size as a side or (height, width), got {size!r}.")
    for side in sides:
        read(Size, side, "image_size")
    return sides[0], sides[1]
