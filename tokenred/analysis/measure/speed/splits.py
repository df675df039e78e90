"""The result of splitting a forward's time: one line a phase, all lines together the forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenred.core.errors import UnknownNameError

__all__ = ["CHOOSING", "LINES", "PhaseTime", "TimeSplit", "summarise_split"]

# Name of a line -> how it is printed.
LINES = {
    "attention": "attention",
    "statistics": "statistics and θ",
    "selection": "selection",
    "graph": "graph",
    "fuse": "fuse",
    "projections": "qkv and projection",
    "mlp": "MLP",
    "untouched": "untouched blocks",
    "ends": "embedding and head",
    "rest": "rest",
}
CHOOSING = ("selection", "graph", "fuse")


@dataclass(frozen=True)
class PhaseTime:
    """One line of a split.

    Attributes:
        name: a key of `LINES`.
        ms: median time of a batch, in milliseconds.
        ms_q1, ms_q3: its quartiles.
        share: of the sum of all lines.
    """

    name: str
    ms: float
    ms_q1: float
    ms_q3: float
    share: float


@dataclass(frozen=True)
class TimeSplit:
    """Where the time of a forward goes; ``[name]`` finds a line, ``print`` shows the table.

    Attributes:
        phases: the lines of `LINES`, in order. ``statistics`` is what the attention costs beyond
            fused attention on the same tokens, and can fall below 0 where that is nothing.
            ``untouched`` are blocks that run as the model's own. ``rest`` is what no phase covers.
        choosing: selection, graph and fuse together.
        ms: the sum of the lines.
        plain_ms: median time of a forward that nobody looks into.
        repeats: forwards of each kind.
        batch_size, image_shape, tokens, precision, seed: what ran; ``tokens`` enter the first
            block, prefix included.
        machine: see `tokenred.analysis.describe_machine`.
    """

    phases: tuple[PhaseTime, ...]
    choosing: PhaseTime
    ms: float
    plain_ms: float
    repeats: int
    batch_size: int
    image_shape: tuple[int, int, int]
    tokens: int
    precision: str
    seed: int
    machine: dict[str, str | int]

    def __getitem__(self, name: str) -> PhaseTime:
        """The line of a name.

        Raises:
            UnknownNameError: for a name that is not in `LINES`.
        """
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise UnknownNameError.of("phase", name, [phase.name for phase in self.phases])

    @property
    def cost_of_looking(self) -> float:
        """By how much the sum of the lines exceeds a forward that nobody looks into, as a share."""
        return self.ms / self.plain_ms - 1

    def shares(self) -> dict[str, float]:
        """Share of each line, and of ``choosing``."""
        shares = {phase.name: phase.share for phase in self.phases}
        return shares | {"choosing": self.choosing.share}

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain values."""
        return dataclasses.asdict(self) | {"cost_of_looking": self.cost_of_looking}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TimeSplit:
        """What `to_dict` gave."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        fields["phases"] = tuple(PhaseTime(**phase) for phase in fields["phases"])
        fields["choosing"] = PhaseTime(**fields["choosing"])
        fields["image_shape"] = tuple(fields["image_shape"])
        return cls(**fields)

    def frame(self) -> Any:
        """A pandas frame, one row a line."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(phase) for phase in self.phases])

    def __str__(self) -> str:
        lines = [f"{'phase':<20}  {'ms':>9}  {'[quartiles]':>19}  {'share':>6}"]
        lines += [_line(LINES[phase.name], phase) for phase in self.phases]
        lines.append(_line("select, graph, fuse", self.choosing))
        m = self.machine
        lines.append(
            f"sum {self.ms:.2f} ms, {self.cost_of_looking:+.1%} against the {self.plain_ms:.2f} ms "
            f"of a forward that nobody looks into; {self.repeats} of each"
        )
        lines.append(
            f"batch {self.batch_size}, {self.tokens} tokens, {self.precision}; {m['processor']}, "
            f"{m['cores']} cores, {m['threads']} threads, torch {m['torch']}, device {m['device']}"
        )
        return "\n".join(lines)


def _line(title: str, phase: PhaseTime) -> str:
    spread = f"[{phase.ms_q1:.2f}, {phase.ms_q3:.2f}]"
    return f"{title:<20}  {phase.ms:>9.2f}  {spread:>19}  {phase.share:>6.1%}"


def summarise_split(
    seconds: Mapping[str, NDArray[np.float64]], plain: NDArray[np.float64], **about: Any
) -> TimeSplit:
    """Medians, quartiles and shares.

    Args:
        seconds: for each name in `LINES`, ``(repeats,)`` seconds.
        plain: ``(repeats,)`` seconds of forwards that nobody looked into.
        about: the other fields of `TimeSplit`.
    """
    total = sum(float(np.median(times)) for times in seconds.values())
    phases = tuple(_phase(name, seconds[name], total) for name in LINES)
    together = np.sum([seconds[name] for name in CHOOSING], axis=0)
    return TimeSplit(
        phases=phases,
        choosing=_phase("choosing", together, total),
        ms=total * 1e3,
        plain_ms=float(np.median(plain)) * 1e3,
        repeats=len(plain),
        **about,
    )


def _phase(name: str, seconds: NDArray[np.float64], total: float) -> PhaseTime:
    low, middle, high = (float(q) for q in np.quantile(seconds, [0.25, 0.5, 0.75]))
    return PhaseTime(name, middle * 1e3, low * 1e3, high * 1e3, middle / total)
