"""Runs one promise after the other through hypothesis, and tells how one was broken."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Flaky, HypothesisException, Unsatisfiable
from hypothesis.strategies import SearchStrategy

from tokenred.attention import AttentionStats
from tokenred.core.errors import ConfigError, PartError, UntrainedPartWarning
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.testing.sample import Sample

__all__ = ["Suite", "build_for", "built", "refuses"]

T = TypeVar("T")

# What a model lacks, for each trait that needs something.
_LACKING: dict[str, dict[str, Any]] = {
    "needs_cls": {"cls_index": None},
    "needs_grid": {"grid": None},
}


@dataclass(frozen=True)
class Suite:
    """The promises of one part.

    Attributes:
        kind: what the part is, for messages.
        part: the part.
        max_examples: examples drawn for each promise.
        derandomize: draw the same examples in every run.
    """

    kind: str
    part: Part
    max_examples: int = 25
    derandomize: bool = True

    def holds(self, promise: str, draws: SearchStrategy[T], body: Callable[[Any, T], None]) -> None:
        """Try a promise, ``body(part, example)``, on many examples.

        Raises:
            AssertionError: naming the part, the promise and the smallest example that breaks it.
        """

        @settings(
            max_examples=self.max_examples,
            derandomize=self.derandomize,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(draws)
        def attempt(case: T) -> None:
            try:
                body(self.part, case)
            except HypothesisException:
                raise
            except Exception as error:
                found = str(error)
                if not isinstance(error, AssertionError):
                    found = f"{type(error).__name__}: {found}"
                raise AssertionError(
                    self._broken(promise, f"{found}\n  example: {case!r}")
                ) from error

        try:
            attempt()
        except AssertionError as error:
            # Without hypothesis' own notes, which print every tensor of the example.
            raise AssertionError(str(error)) from error.__cause__
        except Flaky as error:
            found = "it fails on an example, and passes on the same example tried again"
            raise AssertionError(self._broken(promise, found)) from error
        except Unsatisfiable as error:
            found = "the part's check() refuses every model drawn, so nothing could be tried"
            raise AssertionError(self._broken(promise, found)) from error

    def refuses_what_it_must(self, info: ModelInfo) -> None:
        """Try what `needs_cls` and `needs_grid` promise: a refusal before anything runs.

        Raises:
            AssertionError: where the part accepts a model that lacks what it needs.
        """
        for trait, lacking in _LACKING.items():
            poor = replace(info, **lacking)
            if getattr(self.part.traits, trait) and not refuses(self.part, poor):
                promise = f"{trait}: check() refuses a model without one, with a ConfigError"
                raise AssertionError(self._broken(promise, "the model was accepted"))

    def _broken(self, promise: str, found: str) -> str:
        return (
            f"the {self.kind} {self.part!r} breaks its contract\n"
            f"  promise: {promise}\n  found: {found}"
        )


def refuses(part: Part, info: ModelInfo) -> bool:
    """Whether the part's own check refuses a model."""
    try:
        part.check(info)
    except ConfigError:
        return True
    return False


def built(part: Part, sample: Sample) -> tuple[Any, AttentionStats]:
    """The part as it runs on the sample's model, and the attention statistics that it asks for.

    Weights, where the part has some, are the same each time. An example whose model the part
    refuses is left aside.
    """
    made = build_for(part, sample.info, sample.state.x.dtype)
    return made, sample.attention(getattr(made, "requires", getattr(part, "requires", ())))


def build_for(part: Part, info: ModelInfo, dtype: torch.dtype) -> Any:
    """The part as it runs on a model, with weights of one type."""
    assume(not refuses(part, info))
    if type(part).build is Part.build:
        return part
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrainedPartWarning)
        torch.manual_seed(0)
        try:
            made = part.built_for(info)
        except PartError as error:
            raise AssertionError(str(error)) from error
    if made.network is not None:
        made.network.to(dtype).eval()
    return made
