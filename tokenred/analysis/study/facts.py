"""What planning needs to know of models and data, kept in the store so that nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from torch import nn

from tokenred.analysis.study.loading import (
    content_of,
    data_identity,
    load_base,
    model_identity,
    open_data,
)
from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.analysis.study.store import Store
from tokenred.core.errors import DataError, TokenredError
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.reduced.model import ReducedViT

__all__ = ["DataFacts", "Facts", "ModelFacts"]

T = TypeVar("T")


@dataclass(frozen=True)
class ModelFacts:
    """A model as a plan sees it.

    Attributes:
        identity: of weights, anatomy and preprocessing.
        weights: digest of the weights.
        dtype: their type.
        info: for parts and schedules.
        stem: multiply-accumulates of the embedding.
        gmacs: cost of the dense model.
    """

    identity: str
    weights: str
    dtype: str
    info: ModelInfo
    stem: float
    gmacs: float


@dataclass(frozen=True)
class DataFacts:
    """Data as a plan sees it.

    Attributes:
        identity: of images, labels, and what is made of the images.
        name: for tables.
        images: how many.
        content: digest of the images alone.
    """

    identity: str
    name: str
    images: int
    content: str


@dataclass(frozen=True)
class Content:
    """The digest of images, see `content_of`."""

    digest: str


class Facts:
    """Finds facts in a store, or by loading; see `keep`.

    Args:
        store: to look into.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        # By the very reference, which lives as long: another one is another model.
        self._models: dict[ModelRef, ModelFacts] = {}
        self._contents: dict[DataRef | None, tuple[str | None, str]] = {}
        self._loaded: dict[ModelRef, nn.Module] = {}
        self._fresh: dict[str, Any] = {}

    def model(self, ref: ModelRef) -> ModelFacts:
        """The facts about a model.

        Raises:
            TokenredError: for a model that cannot be loaded, or that no adapter knows.
        """
        if ref not in self._models:
            self._models[ref] = self._find(ref.stamp(), lambda: self._look(ref), _model_facts)
        return self._models[ref]

    def data(self, ref: DataRef, model: ModelRef) -> DataFacts:
        """The facts about data that a model is to be run on.

        Raises:
            TokenredError: for data that cannot be opened, or of other classes than the model's.
        """
        stamp = ref.stamp()
        whole = stamp and f"{stamp} for {self.model(model).identity}"
        found = self._find(whole, lambda: self._open(ref, model, stamp), lambda v: DataFacts(**v))
        self._contents[ref] = stamp, found.content
        return found

    def content(self, ref: DataRef | None) -> tuple[str | None, str]:
        """The stamp of data and the digest of its images; empty for what no cell uses."""
        return self._contents.get(ref, (None, ""))

    def weights(self, ref: ModelRef) -> str:
        """The digest of a model's weights; empty for one that no cell uses."""
        known = self._models.get(ref)
        return "" if known is None else known.weights

    def keep(self) -> None:
        """Write what was found by loading into the store."""
        if self._store is not None:
            self._store.remember(self._fresh)
            self._fresh = {}

    @property
    def is_fresh(self) -> bool:
        """Whether something was found that the store does not know."""
        return bool(self._fresh)

    @property
    def in_memory(self) -> list[tuple[ModelRef, nn.Module]]:
        """Models that had to be loaded."""
        return list(self._loaded.items())

    def loaded(self, ref: ModelRef) -> nn.Module:
        """The model itself."""
        if ref not in self._loaded:
            self._loaded[ref] = load_base(ref)
        return self._loaded[ref]

    def _find(
        self, stamp: str | None, look: Callable[[], T], read: Callable[[dict[str, Any]], T | None]
    ) -> T:
        if stamp in self._fresh:
            known = self._fresh[stamp]
        else:
            known = None if stamp is None or self._store is None else self._store.fact(stamp)
        if known is not None and (told := read(known)) is not None:
            return told
        found = look()
        if stamp is not None:
            self._fresh[stamp] = asdict(found)  # type: ignore[call-overload]
        return found

    def _look(self, ref: ModelRef) -> ModelFacts:
        from tokenred.analysis.measure.machine import weights_digest
        from tokenred.reduced.api import dense

        model = self.loaded(ref)
        reduced = dense(model.base if isinstance(model, ReducedViT) else model)
        weights = weights_digest(model)
        cost = reduced.cost()
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        identity = model_identity(model)
        return ModelFacts(identity, weights, dtype, reduced.info, cost.stem, cost.gmacs)

    def _open(self, ref: DataRef, model: ModelRef, stamp: str | None) -> DataFacts:
        try:
            data = open_data(ref, self.loaded(model))
        except TokenredError:
            raise
        except OSError as error:
            raise DataError(f"cannot open the data {ref.label!r}: {error}.") from error
        stamp = stamp and f"content of {stamp}"  # whichever model it is for
        images = self._find(stamp, lambda: Content(content_of(data)), lambda v: Content(**v))
        identity = data_identity(ref, data, images.digest)
        return DataFacts(identity, data.name, len(data), images.digest)


def _model_facts(told: dict[str, Any]) -> ModelFacts | None:
    """Facts as they were written; None where another tokenred knew more or less of a model."""
    info: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in told["info"].items()
    }
    if info.keys() != {f.name for f in fields(ModelInfo)}:
        return None
    try:
        info["blocks"] = tuple(BlockInfo(**block) for block in info["blocks"])
    except TypeError:
        return None
    return ModelFacts(**{**told, "info": ModelInfo(**info)})
