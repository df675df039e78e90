"""The fresh interpreter of `peak_memory`: a job as JSON comes in, the answer goes out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from tokenred.analysis.measure.accuracy.out_of_memory import is_out_of_memory
from tokenred.analysis.measure.speed.build import build_model
from tokenred.analysis.measure.speed.memory import measure_here
from tokenred.core.errors import TokenredError
from tokenred.reduced.wrap import wrap
from tokenred.strategies.specs import parse_spec
from tokenred.strategies.strategy import from_config

__all__ = ["answer", "main"]


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job of `peak_memory`; an error becomes its name and message."""
    try:
        shape = job["image_shape"]
        model = build_model(
            job["model"],
            None if shape is None else (shape[1], shape[2]),
            getattr(torch, job["dtype"]),
            job["seed"],
        )
        if job["strategy"] is not None:
            spec = parse_spec(from_config(job["strategy"]))
            model = wrap(model, replace(spec, share=job["share"]))
        amp = job["amp"]
        return measure_here(
            model,
            shape,
            job["batch_size"],
            threads=job["threads"],
            device=torch.device(job["device"]),
            amp=None if amp is None else getattr(torch, amp),
            seed=job["seed"],
            own_process=True,
        ).to_dict()
    except (TokenredError, MemoryError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    except RuntimeError as error:
        if is_out_of_memory(error):
            return {"error": "MemoryError", "message": str(error).splitlines()[0]}
        raise


def main() -> None:
    """Read the job from standard input, print the answer as the last line."""
    print(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
