"""What planning needs to know of models and data, kept in the store so that nothing is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import nn

from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.core.fingerprint import digest, identity_of
from tokenred.core.info import BlockInfo, ModelInfo
from tokenred.reduced.model import ReducedViT

if TYPE_CHECKING:
    from tokenred.analysis.study.store import Store
    from tokenred.data import ImageDataset

__all__ = ["DataFacts", "Facts", "ModelFacts", "content_of"]


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
        image_size: "HEIGHTxWIDTH" of its images; "" where it does not say.
    """

    identity: str
    weights: str
    dtype: str
    info: ModelInfo
    stem: float
    gmacs: float
    image_size: str


@dataclass(frozen=True)
class DataFacts:
    """Data as a plan sees it.

    Attributes:
        identity: of images, labels, and what is made of the images.
        content: digest of the images alone.
    """

    identity: str
    content: str


class Facts:
    """Finds facts in a store, or by loading; see `keep`.

    Args:
        store: to look into.
        keyed: whether results are to be found again. Without, models and data are told apart by
            being another object, and images need not be read for it.
    """

    def __init__(self, store: Store | None = None, keyed: bool = True) -> None:
        self.keyed = keyed
        self._store = store
        # By the very reference, which lives as long: another one is another model.
        self._models: dict[ModelRef, ModelFacts] = {}
        self._contents: dict[DataRef | None, tuple[str | None, str]] = {}
        self._loaded: dict[ModelRef, nn.Module] = {}
        self._opened: set[tuple[DataRef, ModelRef]] = set()
        self._fresh: dict[str, Any] = {}

    def model(self, ref: ModelRef) -> ModelFacts:
        """The facts about a model.

        Raises:
            TokenredError: for a model that cannot be loaded, or that no adapter knows.
        """
        if ref not in self._models:
            stamp = ref.stamp()
            found = _model_facts(self._known(stamp))
            if found is None:
                found = _look_at(self.loaded(ref), "" if self.keyed else f"object {id(ref)}")
                self._note(stamp, asdict(found))
            self._models[ref] = found
        return self._models[ref]

    def data(self, ref: DataRef, model: ModelRef) -> DataFacts:
        """The facts about data that a model is to be run on.

        Raises:
            TokenredError: for data that cannot be opened, or of other classes than the model's.
        """
        if not self.keyed:
            if (ref, model) not in self._opened:
                ref.open(self.loaded(model))
                self._opened.add((ref, model))
            return DataFacts(f"object {id(ref)}", "")
        stamp = ref.stamp()
        whole = (
            None
            if ref.dataset is not None
            else stamp and f"{stamp} for {self.model(model).identity}"
        )
        known = self._known(whole)
        if known is None:
            data = ref.open(self.loaded(model))
            content = self._content(data, stamp and f"content of {stamp}")
            known = {"identity": _data_identity(ref, data, content), "content": content}
            self._note(whole, known)
        found = DataFacts(known["identity"], known["content"])
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
            self._loaded[ref] = ref.load()
        return self._loaded[ref]

    def _content(self, data: ImageDataset, stamp: str | None) -> str:
        """The digest of the images, whichever model they are for."""
        known = self._known(stamp)
        if known is None:
            known = {"digest": content_of(data)}
            self._note(stamp, known)
        return str(known["digest"])

    def _known(self, stamp: str | None) -> Any:
        if stamp in self._fresh:
            return self._fresh[stamp]
        return None if stamp is None or self._store is None else self._store.fact(stamp)

    def _note(self, stamp: str | None, found: dict[str, Any]) -> None:
        if stamp is not None:
            self._fresh[stamp] = found


def content_of(data: ImageDataset) -> str:
    """A digest of the images of a dataset and of their names, bytes for bytes."""
    from tokenred.data.sources import raw_of

    seen = hashlib.sha256()
    for index in range(len(data)):
        try:
            raw = raw_of(data.source, index)
        except Exception:  # unreadable: its name counts
            raw = b""
        seen.update(f"{data.name_of(index)!r} {len(raw)} ".encode())
        seen.update(raw)
    return seen.hexdigest()[:16]


def _look_at(model: nn.Module, identity: str) -> ModelFacts:
    from tokenred.analysis.measure.machine import weights_digest
    from tokenred.reduced.wrap import dense

    reduced = model
    if not hasattr(model, "stands_for"):
        reduced = dense(model.base if isinstance(model, ReducedViT) else model)
    assert isinstance(reduced, ReducedViT)
    cost = reduced.cost()
    side = getattr(getattr(reduced.base, "patch_embed", None), "img_size", None)
    return ModelFacts(
        identity=identity or _model_identity(model),
        weights=weights_digest(model),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        info=reduced.info,
        stem=cost.stem,
        gmacs=cost.gmacs,
        image_size="" if side is None else f"{side[0]}x{side[1]}",
    )


def _model_identity(model: nn.Module) -> str:
    """A digest of all that a model's logits come from: equal ones give equal logits.

    Classes, attributes, weights and other tensors of all modules, functions put on them, hooks,
    versions of packages, and the preprocessing. Training mode is none of it.

    Raises:
        PartError: for an own module that holds what cannot be told apart from another.
    """
    from tokenred.models.likeness import evaluating
    from tokenred.models.metadata import PREPROCESSING

    more: list[Any] = []
    if isinstance(model, ReducedViT):
        more = [model.strategy.fingerprint(), model._modules.get("parts")]
        more += [getattr(model, "full_size", None)]
        model = model.base
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {name: str(config.get(name)) for name in PREPROCESSING}
    with evaluating(model):
        return identity_of([model, told, more], type(model).__name__)


def _data_identity(ref: DataRef, data: ImageDataset, content: str) -> str:
    """A digest of images, labels, and of what an own dataset makes of the images.

    Raises:
        PartError: for an own transform or dataset that cannot be told apart from another.
    """
    from tokenred.data import ImageDataset

    told = [content, data.labels, data.classes]
    if ref.dataset is not None:
        name = f"the dataset {data.name!r}"
        told.append(identity_of(ref.dataset.transform, f"{name} > transform"))
        if type(data) is not ImageDataset:
            of_all = ("source", "labels", "classes", "name", "transform")
            own = {k: v for k, v in vars(data).items() if k not in of_all}
            told.append(identity_of([type(data), own], name))
    return digest(repr(told))


def _model_facts(told: dict[str, Any] | None) -> ModelFacts | None:
    """Facts as they were written; None where another tokenred knew more or less of a model."""
    if told is None or told.keys() != {f.name for f in fields(ModelFacts)}:
        return None
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
