"""The results of timing: medians, speed-ups and how much of the allowed one is real."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenred.analysis.measure.speed.splits import TimeSplit
from tokenred.core.errors import DataError, UnknownNameError
from tokenred.core.files import check_new, write_atomically

__all__ = ["Benchmark", "Timing", "summarise"]

_LEVEL = 0.90
_RESAMPLES = 5000
_DERIVED = ("allowed", "realised", "realised_low", "realised_high")


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
        overhead_gmacs: what the method spends on choosing and fusing, not in ``gmacs``.
        ms_q1, ms_q3, dense_ms_q1, dense_ms_q3, speedup_q1, speedup_q3: quartiles.
        peak_bytes, dense_peak_bytes: peak of allocations in a forward; None where not measured.
        split: where the candidate's time goes; None where not measured.
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
    overhead_gmacs: float
    ms_q1: float
    ms_q3: float
    dense_ms_q1: float
    dense_ms_q3: float
    speedup_q1: float
    speedup_q3: float
    peak_bytes: int | None = None
    dense_peak_bytes: int | None = None
    split: TimeSplit | None = None

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
        """All figures by name; those not measured are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.split is not None:
            fields["split"] = self.split.to_dict()
        found = fields | {name: getattr(self, name) for name in _DERIVED}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timing:
        """What `to_dict` gave."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        if "split" in fields:
            fields["split"] = TimeSplit.from_dict(fields["split"])
        return cls(**fields)

    def row(self) -> dict[str, Any]:
        """`to_dict` for a table: of the split only its shares, as ``split_attention`` and so on."""
        row = self.to_dict()
        if self.split is not None:
            del row["split"]
            row |= {f"split_{name}": share for name, share in self.split.shares().items()}
            row["split_cost_of_looking"] = self.split.cost_of_looking
        return row


@dataclass(frozen=True)
class Benchmark:
    """Timings, and what they were taken on. Iterates over the timings; ``[name]`` finds one.

    Attributes:
        timings: one a candidate.
        batch_size, image_shape, precision, seed: what ran.
        machine: see `tokenred.analysis.describe_machine`.
        compile: whether dense model and candidates were compiled, or in which mode.
    """

    timings: tuple[Timing, ...]
    batch_size: int
    image_shape: tuple[int, int, int]
    precision: str
    seed: int
    machine: dict[str, str | int]
    compile: bool | str = False

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
        common["compile"] = str(self.compile).lower()
        return pd.DataFrame([timing.row() | common for timing in self.timings])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return fields | {"timings": [timing.to_dict() for timing in self.timings]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Benchmark:
        """What `to_dict` gave."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        fields["timings"] = tuple(Timing.from_dict(timing) for timing in fields["timings"])
        fields["image_shape"] = tuple(fields["image_shape"])
        return cls(**fields)

    def to_json(self, path: str | Path | None = None, *, overwrite: bool = False) -> str:
        """The benchmark as JSON text, written to ``path`` where one is given.

        Raises:
            OutputExistsError: where the file exists.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(check_new(path, overwrite=overwrite), text)
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Benchmark:
        """A benchmark from JSON text or from the path of a file.

        Raises:
            DataError: for a file that cannot be read, or that holds something else.
        """
        try:
            is_text = isinstance(source, str) and source.lstrip().startswith("{")
            text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
            return cls.from_dict(json.loads(text))
        # A file may hold any JSON, of any depth.
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            shown = "the text given" if is_text else source
            raise DataError(
                f"expected a benchmark that to_json wrote, got {shown} "
                f"({type(error).__name__}: {error})."
            ) from error

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
        m, compiled = self.machine, ", compiled" if self.compile else ""
        pairs = self.timings[0].pairs if self.timings else 0
        lines.append(
            f"batch {self.batch_size}, {self.precision}{compiled}, {pairs} pairs; "
            f"{m['processor']}, {m['cores']} cores, {m['threads']} threads, torch {m['torch']}, "
            f"device {m['device']}"
        )
        return "\n".join(lines)


def summarise(
    name: str,
    seconds: NDArray[np.float64],
    batch_size: int,
    gmacs: float,
    dense_gmacs: float,
    *,
    overhead_gmacs: float = 0.0,
    seed: int = 0,
) -> Timing:
    """Medians, and the percentile bootstrap of the median ratio.

    Args:
        name: of the candidate.
        seconds: ``(pairs, 2)`` times of the dense model and of the candidate.
        batch_size: images in a batch.
        gmacs, dense_gmacs, overhead_gmacs: cost of an image.
        seed: of the bootstrap.
    """
    ratios = seconds[:, 0] / seconds[:, 1]
    draws = np.random.default_rng(seed).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    tails = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(np.median(ratios[draws], axis=1), tails)
    dense, own = np.median(seconds, axis=0)
    quartiles = [0.25, 0.75]
    (dense_q1, own_q1), (dense_q3, own_q3) = np.quantile(seconds * 1e3, quartiles, axis=0).tolist()
    speedup_q1, speedup_q3 = np.quantile(ratios, quartiles).tolist()
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
        overhead_gmacs=overhead_gmacs,
        ms_q1=own_q1,
        ms_q3=own_q3,
        dense_ms_q1=dense_q1,
        dense_ms_q3=dense_q3,
        speedup_q1=speedup_q1,
        speedup_q3=speedup_q3,
    )
