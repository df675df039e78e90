"""What planning needs to know about models and data, kept in the store to avoid loading them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from torch import nn

from tokenred.analysis.measure.machine import weights_digest
from tokenred.analysis.study.refs import DataRef, ModelRef
from tokenred.analysis.study.store import Store
from tokenred.core.errors import PartError
from tokenred.core.fingerprint import digest, identity_of
from tokenred.core.info import ModelInfo
from tokenred.core.part import Part
from tokenred.core.tensors import evaluating
from tokenred.data import ImageDataset
from tokenred.data.sources import raw_of
from tokenred.reduced.cost import Cost, strategy_cost
from tokenred.reduced.model import ReducedViT
from tokenred.reduced.plan import plan_layers, resolve_budget
from tokenred.reduced.wrap import dense
from tokenred.strategies.config import told_text
from tokenred.strategies.strategy import Strategy


@dataclass(frozen=True)
class ModelFacts:
    """What a plan knows about a model."""

    identity: str  # digest of weights, anatomy and preprocessing
    weights: str  # digest of the weights
    dtype: str  # their type
    info: ModelInfo
    stem: float  # multiply-accumulates of the embedding
    gmacs: float  # cost of the dense model
    image_size: str  # "HEIGHTxWIDTH" of its images; "" if unknown


class Facts:
    """Looks up facts in a store, or finds them by loading; see `keep`.

    If results will not be looked up again (not ``keyed``), models and data are told apart by object
    identity, and images need not be read.
    """

    def __init__(self, store: Store | None = None, keyed: bool = True) -> None:
        self.keyed = keyed
        self._store = store
        # By the reference object, which lives as long: another one is another model.
        self._models: dict[ModelRef, ModelFacts] = {}
        self._data: dict[tuple[DataRef, ModelRef], str] = {}
        # Stamps and digests of weights and images, which workers compare with theirs.
        self.planned: dict[Any, tuple[str | None, str]] = {}
        self._counts: dict[Any, tuple[tuple[int, ...], ...]] = {}
        self._codes: dict[type, str] = {}
        self.loaded: dict[ModelRef, nn.Module] = {}
        self._fresh: dict[str, Any] = {}

    def model(self, ref: ModelRef) -> ModelFacts:
        """The facts about a model."""
        if ref not in self._models:
            stamp = ref.stamp()
            told = self._remembered(stamp, lambda: asdict(self._look_at(ref)))
            # A list is a tuple again, a dictionary a `ModelInfo`.
            self._models[ref] = TypeAdapter(ModelFacts).validate_python(told)
            self.planned[ref] = stamp, told["weights"]
        return self._models[ref]

    def data(self, ref: DataRef, model: ModelRef) -> str:
        """The identity of images, labels, and what is made of the images, for a model."""
        if (ref, model) not in self._data:
            self._data[ref, model] = self._identity(ref, model)
        return self._data[ref, model]

    def fingerprint(self, ref: ModelRef, strategy: Strategy) -> str:
        """The fingerprint of a strategy; refused if the model cannot run it."""
        told = self._told(strategy)
        self._removed(ref, strategy, told)
        return digest("\n".join(f"{name} {text}" for name, text in told.items()))

    def cost(self, ref: ModelRef, strategy: Strategy) -> Cost:
        """The cost of an image under a strategy that the model can run."""
        facts = self.model(ref)
        removed = self._removed(ref, strategy, self._told(strategy))
        # A budget that the router spends is in the strategy, not in the counts.
        spent = resolve_budget(strategy, facts.info, facts.stem)
        return strategy_cost(spent, facts.info, removed, facts.stem)

    def keep(self, store: Store) -> None:
        """Store the facts that were found by loading."""
        store.remember(self._fresh)
        self._fresh = {}

    def _told(self, strategy: Strategy) -> dict[str, str]:
        """What determines the results of a strategy, by field."""
        try:
            return {n: told_text(v, self._codes) for n, v in strategy.arguments().items()}
        except PartError:
            if self.keyed:
                raise
            return {"": uuid4().hex}

    def _removed(
        self, ref: ModelRef, strategy: Strategy, told: Mapping[str, str]
    ) -> tuple[tuple[int, ...], ...]:
        """The tokens that a strategy removes, by step and block of a model."""
        # They do not depend on θ or a graph, unless it has weights that a budget must include.
        free = {"theta"}
        if type(strategy.graph).learned_macs is Part.learned_macs:
            free.add("graph")
        mark = (ref, *(told[name] for name in told if name not in free))
        facts = self.model(ref)
        strategy.graph.check(facts.info)
        if mark not in self._counts:
            strategy.check(facts.info)
            spent = resolve_budget(strategy, facts.info, facts.stem)
            self._counts[mark] = plan_layers(spent, facts.info, facts.stem).counts
        return self._counts[mark]

    def _load(self, ref: ModelRef) -> nn.Module:
        if ref not in self.loaded:
            self.loaded[ref] = ref.load()
        return self.loaded[ref]

    def _look_at(self, ref: ModelRef) -> ModelFacts:
        reduced = model = self._load(ref)
        if not hasattr(model, "stands_for"):
            reduced = dense(model.base if isinstance(model, ReducedViT) else model)
        assert isinstance(reduced, ReducedViT)
        cost = reduced.cost()
        side = getattr(getattr(reduced.base, "patch_embed", None), "img_size", None)
        return ModelFacts(
            identity=_model_identity(model) if self.keyed else f"object {id(ref)}",
            weights=weights_digest(model),
            dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
            info=reduced.info,
            stem=cost.stem,
            gmacs=cost.gmacs,
            image_size="" if side is None else f"{side[0]}x{side[1]}",
        )

    def _identity(self, ref: DataRef, model: ModelRef) -> str:
        if not self.keyed:
            ref.open(self._load(model))
            return f"object {id(ref)}"

        def look() -> dict[str, str]:
            data = ref.open(self._load(model))
            # Of the images, for any model.
            content = self._remembered(stamp and f"images of {stamp}", lambda: content_of(data))
            return {"identity": _data_identity(ref, data, content), "content": content}

        stamp = ref.stamp()
        in_memory = stamp is None or ref.dataset is not None
        whole = None if in_memory else f"{stamp} for {self.model(model).identity}"
        known = self._remembered(whole, look)
        self.planned[ref] = stamp, known["content"]
        return str(known["identity"])

    def _remembered(self, stamp: str | None, make: Callable[[], Any]) -> Any:
        """What is stored under a stamp, or is found now; None for what cannot be stored."""
        if stamp is None:
            return make()
        if stamp not in self._fresh:
            found = None if self._store is None else self._store.fact(stamp)
            if found is not None:
                return found
            self._fresh[stamp] = make()
        return self._fresh[stamp]


def content_of(data: ImageDataset) -> str:
    """A digest of the images of a dataset, byte for byte, and of their names."""
    seen = hashlib.sha256()
    for index in range(len(data)):
        try:
            raw = raw_of(data.source, index)
        except Exception:  # unreadable: its name counts
            raw = b""
        seen.update(f"{data.name_of(index)!r} {len(raw)} ".encode())
        seen.update(raw)
    return seen.hexdigest()[:16]


def _model_identity(model: nn.Module) -> str:
    """A digest of everything that determines a model's logits.

    Classes, attributes, weights and other tensors of all modules, functions set on them, hooks,
    versions of packages, and the preprocessing. Training mode is not included.
    """
    from tokenred.models.metadata import PREPROCESSING

    more: list[Any] = []
    if isinstance(model, ReducedViT):
        more = [model.strategy.fingerprint(), model._modules.get("parts")]
        more += [model.prepare]
        model = model.base
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    told = {name: str(config.get(name)) for name in PREPROCESSING}
    with evaluating(model):
        return identity_of([model, told, more], type(model).__name__)


def _data_identity(ref: DataRef, data: ImageDataset, content: str) -> str:
    """A digest of images, labels, and of a user's dataset and transform."""
    told = [content, data.labels, data.classes]
    if ref.dataset is not None:
        name = f"the dataset {data.name!r}"
        told.append(identity_of(ref.dataset.transform, f"{name} > transform"))
        if type(data) is not ImageDataset:
            of_all = ("source", "labels", "classes", "name", "transform")
            own = {k: v for k, v in vars(data).items() if k not in of_all}
            told.append(identity_of([type(data), own], name))
    return digest(repr(told))
