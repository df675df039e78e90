"""What every pluggable part is: a frozen, comparable, printable configuration.

A subclass becomes a frozen dataclass, so a new part is a class body::

    class NormAttn(Scorer):
        power: float = 1.0

        def __call__(self, state, attention): ...
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import nn
from typing_extensions import Self, dataclass_transform

from tokenred.core.errors import ConfigError, PartError, TokenredError, shown
from tokenred.core.info import ModelInfo
from tokenred.core.values import checked, unknown_parameter


@checked
@dataclass(frozen=True)
class Traits:
    """What a part promises; the property suites hold it to every promise.

    Attributes:
        equivariant: relabelling the image tokens relabels the result and changes nothing else.
        deterministic: the same input gives the same output, always.
        conserves_size: the token sizes sum to the same number before and after.
        needs_cls: a class token must be among the prefix tokens.
        needs_grid: the image tokens must lie on a known grid.
        independent: what happens to an image does not depend on the others in its batch.
    """

    equivariant: bool = True
    deterministic: bool = True
    conserves_size: bool = False
    needs_cls: bool = False
    needs_grid: bool = False
    independent: bool = True


@dataclass_transform(frozen_default=True)
class Part:
    """A frozen configuration of one step of a method. Equal configurations are equal parts.

    Its parameters are read according to their annotations; see `tokenred.core.values`.

    Attributes:
        version: raised by tokenred's parts when their results change, so that stored results are
            not found any more; for other parts the code itself counts.
        network: the weights of a part that has some, if it was built for a model.
        per_block: parameters that have one value for each block, where they have several.
    """

    traits: ClassVar[Traits] = Traits()
    version: ClassVar[int] = 1
    network: ClassVar[nn.Module | None] = None  # of an instance, ignored by equality
    per_block: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # An own __init__ cannot assign to a frozen class: say so where it is written.
        if "__init__" in cls.__dict__ and "__dataclass_fields__" not in cls.__dict__:
            raise ConfigError(
                f"{cls.__name__} defines __init__; a part is a frozen dataclass. "
                "Declare its parameters as annotated fields, and check them in __post_init__."
            )
        made = dataclass(frozen=True)(cls)
        _check_fields(made)
        _check_methods(made)
        checked(made)

    def replace(self, **changes: Any) -> Self:
        """A copy with some parameters changed.

        Raises:
            UnknownNameError: for a parameter that the part does not have.
            ConfigError: for a value that its annotation excludes.
        """
        known = [f.name for f in dataclasses.fields(self) if f.init]  # type: ignore[arg-type]
        if unknown := [name for name in changes if name not in known]:
            raise unknown_parameter(type(self), unknown[0], known)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def check(self, info: ModelInfo) -> None:
        """Refuse a model that the part cannot work on, before anything runs.

        A field called ``layers`` contains block numbers, which the model must have.

        Raises:
            ConfigError: with what the part needs and what the model has.
        """
        layers = getattr(self, "layers", None)
        check_blocks(self, layers if isinstance(layers, tuple) else None, info.depth)
        for name in self.per_block:
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != info.depth:
                raise ConfigError(
                    f"{type(self).__name__}: {name} has {len(values)} values, but {info.name} has "
                    f"{info.depth} blocks. Pass one for each."
                )
        if self.traits.needs_cls and info.cls_index is None:
            raise ConfigError(
                f"{type(self).__name__} reads the attention of a CLS token, and {info.name} has "
                f"none (its {info.num_prefix} prefix tokens are no class token). "
                "Use MixedAttn, DiagAttn, BroadAttn, CosSim or Random."
            )
        if self.traits.needs_grid and info.grid is None:
            raise ConfigError(
                f"{type(self).__name__} needs to know the grid of patches, and that of "
                f"{info.name} is not known. Use graph='semantic' or graph='none'."
            )

    def build(self, info: ModelInfo) -> Part | nn.Module:
        """What runs on a model: the part, one that stands in for it, or the part's weights.

        An ``nn.Module`` becomes the `network` of a copy, which by default calls it.
        """
        return self

    def built_for(self, info: ModelInfo, network: nn.Module | None = None) -> Self:
        """The part as it runs on a model.

        Args:
            info: the model.
            network: existing weights; None for those that `build` makes.

        Raises:
            PartError: if `build` returns something else.
        """
        made = self.build(info) if network is None else network
        if isinstance(made, nn.Module):
            return self.with_network(made)
        if not isinstance(made, Part):
            raise PartError(
                f"{type(self).__name__}: build() gives {shown(made)}, which is neither a part nor "
                "an nn.Module."
            )
        return cast(Self, made)  # of the same contract

    def with_network(self, network: nn.Module) -> Self:
        """The same part with these weights."""
        made = copy.copy(self)
        object.__setattr__(made, "network", network)
        return made

    def _called(self, *given: Any) -> Any:
        """Forward to the weights; for parts without their own ``__call__``."""
        if self.network is None:
            raise PartError(
                f"{type(self).__name__} has no __call__, and build() gave it no weights to call."
            )
        return self.network(*given)

    def macs(self, info: ModelInfo, tokens: int, removed: int) -> float:
        """Multiply-accumulates (per image) spent on choosing or fusing in one layer.

        Of a graph builder: on the graph, once per forward pass.

        Args:
            info: the model.
            tokens: image tokens ``n`` before the step, or in the graph.
            removed: tokens ``P`` that the step removes; 0 for a graph.
        """
        return 0.0

    def learned_macs(self, info: ModelInfo, counts: tuple[int, ...]) -> float:
        """Multiply-accumulates (per image) of the part's own weights, which count as the model's.

        Args:
            info: the model.
            counts: tokens removed in each block.
        """
        return 0.0


def _check_fields(cls: type) -> None:
    """Refuse a parameter that hides what every part of its kind has.

    Raises:
        ConfigError: with the name, and what it means in the contract.
    """
    for name in (f.name for f in dataclasses.fields(cls)):
        for base in cls.__mro__[1:]:
            own = name in getattr(base, "__dataclass_fields__", ())
            if own or name not in vars(base) or not base.__module__.startswith("tokenred."):
                continue
            raise ConfigError(
                f"{cls.__name__}: the parameter {name!r} would hide {base.__name__}.{name}, which "
                f"means something else. Call it by another name; to set {base.__name__}.{name} "
                f"itself, write it without an annotation ({name} = …)."
            )


def _check_methods(cls: type) -> None:
    """Refuse a method that does not take what is passed to it.

    Raises:
        PartError: with the parameters expected, and its own.
    """
    for name, own in vars(cls).items():
        homes = [base for base in cls.__mro__[1:] if name in vars(base)]
        theirs = vars(homes[-1])[name] if homes else None
        if not (inspect.isfunction(own) and inspect.isfunction(theirs)):
            continue
        told = inspect.signature(theirs).parameters.values()
        expected = [p.name for p in told if p.kind is p.POSITIONAL_OR_KEYWORD]
        signature = inspect.signature(own)
        try:
            signature.bind(*expected)
        except TypeError:
            raise PartError(
                f"{cls.__name__}: expected {name}({', '.join(expected)}), got "
                f"{name}({', '.join(signature.parameters)}); it is called with all of them."
            ) from None


def check_blocks(
    owner: object,
    layers: Iterable[int] | None,
    depth: int,
    error: type[TokenredError] = ConfigError,
) -> None:
    """Refuse numbers of blocks that a model of this depth does not have.

    Raises:
        TokenredError: of the type given, with those blocks and the model's.
    """
    if wrong := [layer for layer in layers or () if not 0 <= layer < depth]:
        raise error(
            f"{type(owner).__name__}: got blocks {wrong}, but the model has 0 to {depth - 1}."
        )


def check_choice(owner: object, field: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not one of the choices; can be called from compiled code."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(
            f"{type(owner).__name__}: {field} must be one of "
            f"{', '.join(map(repr, choices))}, got {shown(value)}."
        )
