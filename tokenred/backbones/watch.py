"""Whether a model is still what it was when an adapter looked at it."""

from __future__ import annotations

from itertools import islice
from operator import is_
from typing import Any

from torch import nn

__all__ = ["Watch"]


class Watch:
    """What a model was made of at one moment, cheap to compare with what it is now.

    Compared by identity: the children of all modules, their classes and those classes' ``forward``,
    and the plain attributes of modules with children and of ``leaves``. Training mode is left out,
    and so are parameters, which a forward reads anew anyway. About 30 µs for twelve blocks.

    Args:
        model: the model.
        leaves: modules without children whose attributes count, too.
    """

    def __init__(self, model: nn.Module, leaves: tuple[nn.Module, ...] = ()) -> None:
        self._modules = list(model.modules())
        self._types = tuple(map(type, self._modules))
        kinds: dict[Any, None] = dict.fromkeys(self._types)
        self._forwards = [(kind, kind.forward) for kind in kinds]
        inner = [m for m in self._modules if m._modules]
        self._children = [(m._modules, tuple(m._modules.items())) for m in inner]
        # The first attribute that a module ever gets is `training`.
        self._attributes = [
            (m.__dict__, len(m.__dict__), tuple(islice(m.__dict__.values(), 1, None)))
            for m in (*inner, *leaves)
        ]

    def holds(self) -> bool:
        """Whether nothing that was noted has changed."""
        for children, then in self._children:
            if tuple(children.items()) != then:
                return False
        if tuple(map(type, self._modules)) != self._types:
            return False
        for kind, forward in self._forwards:
            if kind.forward is not forward:
                return False
        for attributes, count, values in self._attributes:
            if len(attributes) != count:
                return False
            if not all(map(is_, islice(attributes.values(), 1, None), values)):
                return False
        return True

    def guard(self) -> None:
        """Have a compiler guard what was noted: all that the traced code looks at."""
        for children, _ in self._children:
            for child in children.values():
                id(child)
        for attributes, _, _ in self._attributes:
            _ = "forward" in attributes

    def __reduce__(self) -> Any:
        # Of a copy of the model nothing is known: it is looked at anew.
        return _Unknown, ()


class _Unknown(Watch):
    """Of a model that has to be looked at."""

    def __init__(self) -> None:
        pass

    def holds(self) -> bool:
        return False
