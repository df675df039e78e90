"""Whether a figure is the published one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DIFFERS", "MEASURED", "OWED", "REPRODUCED", "TOLERANCES", "Verdict", "judge"]

REPRODUCED, DIFFERS, OWED, MEASURED = "✓", "✗", "owed", "–"

TOLERANCES = {
    "gmacs": 0.16,
    "group_gmacs": 0.3,
    "top1": 0.3,
    "loss": 0.3,
}
WHY = {
    "gmacs": "GMACs within 0.16: printed to 0.1, and counted by a tool that leaves out or adds "
    "small things; the closed form stays within 0.14 of Tables 1 and 7.",
    "group_gmacs": "Where only the cost of a whole group of methods is printed: within 0.3.",
    "top1": "Top-1 within 0.3 points: 0.05 for printed digits, about 0.05 for how an image is "
    "decoded and resized, and 0.2 for α and θ, which the paper chose for each P and mostly "
    "does not print (its own Table 5 moves by 0.1 to 0.3 over θ).",
    "loss": "Loss (points from the dense model, both on the same images) within 0.3 points: two "
    "printed digits and the same settings. It does not hang on the crop of the images.",
    "subset": "On a part of the 50,000 images the half width of the 95% interval is added.",
}


@dataclass(frozen=True)
class Verdict:
    """A verdict, with the tolerance that it was reached with; None where nothing is published."""

    mark: str
    tolerance: float | None


def judge(
    metric: str,
    ours: float | None,
    published: float | None,
    *,
    group: bool = False,
    sampling: float = 0.0,
) -> Verdict:
    """Set a figure beside the published one.

    Args:
        metric: ``"gmacs"``, ``"top1"``, ``"loss"``; others are measured and not judged.
        ours: None where it is not there.
        published: None where it is not known.
        group: the published GMACs are those of a group of methods.
        sampling: half the width of the interval, on a part of the images.
    """
    if ours is None:
        return Verdict(OWED, None)
    if published is None or metric not in TOLERANCES:
        return Verdict(MEASURED, None)
    tolerance = TOLERANCES["group_gmacs" if metric == "gmacs" and group else metric]
    tolerance += 0.0 if metric == "gmacs" else sampling
    # Printed digits are decimal: 0.30000000000000004 is 0.3.
    close = abs(ours - published) <= tolerance + 1e-9
    return Verdict(REPRODUCED if close else DIFFERS, tolerance)
