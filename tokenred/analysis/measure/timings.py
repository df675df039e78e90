"""The results of timing: medians, speed-ups and how much of the allowed one is real."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenred.core.errors import UnknownNameError

__all__ = ["Benchmark", "Timing", "summarise"]

_LEVEL = 0.90
_RESAMPLES = 5000


@dataclass(frozen=True)
class Timing:
    """One candidate against the dense model.

    Attributes:
        name: of the candidate.
        batch_size, pairs: images a batch, pairs of runs.
        dense_ms, ms: median time of a batch, in milliseconds.
        images_per_second: of the candidate, from its median.
        speedup: median over the pairs of dense time ÷ candidate time.
        speedup_low, speedup_high: its 90% bootstrap interval.
        gmacs, dense_gmacs: cost of an image, in 10⁹ multiply-accumulates.
    """

    name: str
    batch_size: int
    pairs: int
    dense_ms: float
    ms: float
    images_per_second: float
    speedup: float
    speedup_low: float
    speedup_high: float
    gmacs: float
    dense_gmacs: float

    @property
    def allowed(self) -> float:
        """The speed-up that the arithmetic allows: dense GMACs ÷ GMACs."""
        return self.dense_gmacs / self.gmacs

    @property
    def realised(self) -> float:
        """The realised fraction: speed-up ÷ allowed speed-up."""
        return self.speedup / self.allowed

    @property
    def realised_low(self) -> float:
        """Lower end of the realised fraction's 90% interval."""
        return self.speedup_low / self.allowed

    @property
    def realised_high(self) -> float:
        """Upper end of the realised fraction's 90% interval."""
        return self.speedup_high / self.allowed

    def to_dict(self) -> dict[str, Any]:
        """All figures by name."""
        derived = ("allowed", "realised", "realised_low", "realised_high")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}


@dataclass(frozen=True)
class Benchmark:
    """Timings, and what they were taken on. Iterates over the timings; ``[name]`` finds one.

    Attributes:
        timings: one a candidate.
        batch_size, image_shape, precision, seed: what ran.
        machine: see `tokenred.analysis.describe_machine`.
    """

    timings: tuple[Timing, ...]
    batch_size: int
    image_shape: tuple[int, int, int]
    precision: str
    seed: int
    machine: dict[str, str | int]

    def __iter__(self) -> Iterator[Timing]:
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    def __getitem__(self, key: str | int) -> Timing:
        """The timing of a name, or at a position.

        Raises:
            UnknownNameError: for a name that was not timed.
        """
        if isinstance(key, int):
            return self.timings[key]
        for timing in self.timings:
            if timing.name == key:
                return timing
        raise UnknownNameError.of("timing", key, [t.name for t in self.timings])

    def frame(self) -> Any:
        """A pandas frame, one row a candidate, with batch, precision, seed and machine."""
        import pandas as pd

        common = {"precision": self.precision, "seed": self.seed, **self.machine}
        common["image_shape"] = "x".join(map(str, self.image_shape))
        return pd.DataFrame([timing.to_dict() | common for timing in self.timings])

    def __str__(self) -> str:
        wide = max([len(t.name) for t in self.timings] + [len("candidate")])
        lines = [
            f"{'candidate':<{wide}}  {'ms':>8}  {'dense ms':>8}  {'img/s':>8}  "
            f"{'speed-up [90%]':>18}  {'allowed':>7}  realised [90%]"
        ]
        for t in self.timings:
            interval = f"{t.speedup:.2f} [{t.speedup_low:.2f}, {t.speedup_high:.2f}]"
            lines.append(
                f"{t.name:<{wide}}  {t.ms:>8.1f}  {t.dense_ms:>8.1f}  "
                f"{t.images_per_second:>8.1f}  {interval:>18}  {t.allowed:>7.2f}  "
                f"{t.realised:.2f} [{t.realised_low:.2f}, {t.realised_high:.2f}]"
            )
        m = self.machine
        pairs = self.timings[0].pairs if self.timings else 0
        lines.append(
            f"batch {self.batch_size}, {self.precision}, {pairs} pairs; {m['processor']}, "
            f"{m['cores']} cores, {m['threads']} threads, torch {m['torch']}, device {m['device']}"
        )
        return "\n".join(lines)


def summarise(
    name: str,
    seconds: NDArray[np.float64],
    batch_size: int,
    gmacs: float,
    dense_gmacs: float,
    *,
    seed: int = 0,
) -> Timing:
    """Medians, and the percentile bootstrap of the median ratio.

    Args:
        name: of the candidate.
        seconds: ``(pairs, 2)`` times of the dense model and of the candidate.
        batch_size: images in a batch.
        gmacs, dense_gmacs: cost of an image.
        seed: of the bootstrap.
    """
    ratios = seconds[:, 0] / seconds[:, 1]
    draws = np.random.default_rng(seed).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(np.median(ratios[draws], axis=1), tails)
    dense, own = np.median(seconds, axis=0)
    return Timing(
        name=name,
        batch_size=batch_size,
        pairs=len(ratios),
        dense_ms=float(dense * 1e3),
        ms=float(own * 1e3),
        images_per_second=float(batch_size / own),
        speedup=float(np.median(ratios)),
        speedup_low=float(low),
        speedup_high=float(high),
        gmacs=gmacs,
        dense_gmacs=dense_gmacs,
    )
