"""Check each promise on many examples; a broken one is reported with the smallest example."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Flaky, HypothesisException, Unsatisfiable
from hypothesis.strategies import SearchStrategy
from jaxtyping import Int
from torch import Tensor

from tokenred.core.errors import ConfigError, PartError, UntrainedPartWarning
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.testing.sample import Sample, image_of, model_info

P = TypeVar("P", bound=Part)
A = TypeVar("A")


class Suite(Generic[P, A]):
    """Checks the promises of one part.

    The suite of each kind adds its own promises, and says how the part is called and how its
    results compare.

    Attributes:
        kind, answer: what messages call the part and its results.
        finite: the promise that what `numbers` gives is finite, whichever check finds that out.
        kept: the promises that were found kept so far.
        refusal: why the part refused the last example that it refused.
    """

    kind: ClassVar[str]
    answer: ClassVar[str] = ""
    finite: ClassVar[str] = ""

    def __init__(self, part: P, max_examples: int) -> None:
        self.part, self.max_examples = part, max_examples
        self.kept: list[str] = []
        self.refusal = ""

    def call(self, case: Sample) -> tuple[Callable[[], A], Mapping[str, object]]:
        """A call of the part on an example, and all its inputs, which must not change."""
        raise NotImplementedError

    def numbers(self, answer: A) -> Mapping[str, Tensor]:
        """What of a result must be finite, by the name that messages use."""
        return {}

    def agree(self, one: A, other: A, what: str, case: Sample) -> None:
        """Fail unless two results are the same up to rounding."""
        raise NotImplementedError

    def moved(self, answer: A, order: Int[Tensor, "b n"]) -> A:
        """The result that is expected for tokens in another order."""
        raise NotImplementedError

    def told(self, answer: A) -> object:
        """What of a result has to be the same on every grid."""
        return answer

    def run(self, case: Sample) -> A:
        """The part's result."""
        with torch.no_grad():
            return self.sound(self.call(case)[0]())

    def sound(self, answer: A) -> A:
        """A result, if its numbers are finite."""
        for name, tensor in self.numbers(answer).items():
            if not bool(tensor.isfinite().all()):
                raise _NotFiniteError(f"{name} are not finite. Look for 0/0, or log of 0")
        return answer

    def tell(self) -> None:
        """Print what was checked."""
        told = "; ".join(promise.partition(":")[0] for promise in self.kept)
        print(f"{self.part!r} keeps the contract of a {self.kind}, {self.max_examples} examples "
              f"for each promise: {told}.")  # fmt: skip

    def holds(self, promise: str, draws: SearchStrategy[Any], body: Callable[[Any], None]) -> None:
        """Check a promise, ``body(example)``, on many examples, the same in every run.

        Raises:
            AssertionError: with the part, the promise and the smallest example that breaks it.
        """

        @settings(
            max_examples=self.max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(draws)
        def attempt(case: Any) -> None:
            try:
                body(case)
            except HypothesisException:
                raise
            except Exception as error:
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                broken = self.finite if isinstance(error, _NotFiniteError) else promise
                raise self._broken(broken, f"{kind}{error}\n  example: {case!r}") from error

        try:
            attempt()
        except AssertionError as error:
            # Without hypothesis' own notes, which print every tensor of the example.
            raise AssertionError(str(error)) from error.__cause__
        except Flaky as error:
            found = "it fails on an example, and passes when tried again on the same example"
            raise self._broken(promise, found) from error
        except Unsatisfiable as error:
            found = f"it refuses every model drawn, so nothing was checked: {self.refusal}"
            raise self._broken(promise, found) from error
        self.kept.append(promise)

    def built(self, case: Sample) -> Any:
        """The part built for a model, with weights that are the same each time.

        Skips an example whose model the part refuses.
        """
        assume(not self._refuses(case.info))
        if type(self.part).build is Part.build:
            return self.part
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UntrainedPartWarning)
            torch.default_generator.manual_seed(0)  # parts are built on the CPU
            try:
                made = self.part.built_for(case.info)
            except PartError as error:
                raise AssertionError(str(error)) from error
        if made.network is not None:
            made.network.to(case.state.x.dtype).eval()
        return made

    def keeps_common_promises(
        self,
        anything: SearchStrategy[Sample],
        *,
        batches: SearchStrategy[Sample],
        smooth: SearchStrategy[Sample],
    ) -> None:
        """Check what every part that is called with tokens promises, depending on its traits.

        Args:
            anything: examples of every kind.
            batches: examples for comparing an image alone and in a batch.
            smooth: examples without ties, for promises that hold up to rounding.
        """
        traits, answer = self.part.traits, self.answer
        for trait, lacking in (("needs_cls", "cls_index"), ("needs_grid", "grid")):
            nothing: dict[str, Any] = {lacking: None}
            poor = replace(model_info(8, (4, 4)), **nothing)
            if getattr(traits, trait) and not self._refuses(poor):
                promise = f"{trait}: check() refuses a model without one, with a ConfigError"
                raise self._broken(promise, "the model was accepted")
        self.holds("inputs are not modified", anything, self._inputs_stay)
        if traits.deterministic:
            promise = f"deterministic: the same input, the same {answer}"
            self.holds(promise, anything, self._twice)
            if traits.independent:
                self.holds("an image is treated alone as in a batch", batches, self._alone)
        if traits.equivariant:
            promise = f"equivariant: permuting the tokens permutes the {answer}"
            self.holds(promise, smooth, self._relabelled)
        if not traits.needs_grid:
            promise = "the grid is not read unless needs_grid is declared"
            self.holds(promise, smooth, self._any_grid)

    def _inputs_stay(self, case: Sample) -> None:
        work, inputs = self.call(case)
        with _untouched(inputs), torch.no_grad():
            self.sound(work())

    def _twice(self, case: Sample) -> None:
        require_same(self.run(case), self.run(case), "called twice")

    def _alone(self, case: Sample) -> None:
        together = self.run(case)
        for i in range(case.images):
            image = image_of(together, i, case.images)
            self.agree(self.run(case.alone(i)), image, f"image {i} alone and in the batch", case)

    def _relabelled(self, case: Sample) -> None:
        order = case.some_order()
        here, there = self.run(case), self.run(case.permuted(order))
        self.agree(there, self.moved(here, order), f"the {self.answer} for permuted tokens", case)

    def _any_grid(self, case: Sample) -> None:
        here, there = (self.told(self.run(one)) for one in (case, case.on_a_line()))
        require_same(here, there, "on its grid, and on a single row")

    def _refuses(self, info: ModelInfo) -> bool:
        try:
            self.part.check(info)
        except ConfigError as error:
            self.refusal = str(error)
            return True
        return False

    def _broken(self, promise: str, found: str) -> AssertionError:
        return AssertionError(
            f"the {self.kind} {self.part!r} breaks its contract\n"
            f"  promise: {promise}\n  found: {found}"
        )


class _NotFiniteError(AssertionError):
    """A result has NaN or infinite numbers."""


def require(holds: object, message: str) -> None:
    """Fail with a message unless a condition holds; of a tensor, unless all its entries do."""
    if not (bool(holds.all()) if isinstance(holds, Tensor) else holds):
        raise AssertionError(message)


def require_same(one: object, other: object, what: str) -> None:
    """Fail unless two results contain exactly the same tensors."""
    first, second = _tensors_in(one), _tensors_in(other)
    require(first.keys() == second.keys(), f"{what}: {sorted(first)} and {sorted(second)}")
    for name, tensor in first.items():
        if not _equal(tensor, second[name]):
            raise AssertionError(f"{what}: {name} is {tensor} and {second[name]}")


def require_close(one: Tensor, other: Tensor, what: str, scale: float = 1.0) -> None:
    """Fail unless two tensors agree up to rounding in the coarser of their types.

    Args:
        one, other: the tensors.
        what: names them in messages.
        scale: magnitude of the numbers in the computation.
    """
    require(one.shape == other.shape, f"{what}: shapes {tuple(one.shape)}, {tuple(other.shape)}")
    coarse = max(torch.finfo(t.dtype).eps for t in (one, other))
    a, b = one.detach().double(), other.detach().double()
    off = (a - b).abs()
    # "not <=" and no ">": NaN is never close.
    if bool((~((off <= 200 * coarse * (scale + b.abs())) | (a == b))).any()):
        raise AssertionError(f"{what}: off by up to {off.max().item():.3g}")


def _tensors_in(value: object, name: str = "result") -> dict[str, Tensor]:
    """All tensors inside a value, by their path."""
    if isinstance(value, Tensor):
        return {name: value}
    inside: dict[str, object] = {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {f"{name}.{f.name}": getattr(value, f.name) for f in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        inside = {f"{name}[{key}]": item for key, item in value.items()}
    elif isinstance(value, tuple | list):
        inside = {f"{name}[{place}]": item for place, item in enumerate(value)}
    return {place: t for at, item in inside.items() for place, t in _tensors_in(item, at).items()}


@contextmanager
def _untouched(inputs: Mapping[str, object]) -> Iterator[None]:
    """Fail if a tensor inside one of the inputs changes while the body runs."""
    found = [pair for label, value in inputs.items() for pair in _tensors_in(value, label).items()]
    before = [(name, tensor, tensor.detach().clone()) for name, tensor in found]
    yield
    for name, tensor, old in before:
        require(_equal(tensor.detach(), old), f"{name} was changed in place")


def _equal(one: Tensor, other: Tensor) -> bool:
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and bool(((one == other) | ((one != one) & (other != other))).all())
