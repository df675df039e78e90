"""Whether a model is still what it was when an adapter looked at it."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Watch"]


class Watch:
    """What a model was made of at one moment, cheap to compare with what it is now.

    Compared, without looking into anything: the children of all modules, their classes and those
    classes' ``forward``, and the plain attributes of modules with children and of ``leaves``.
    Training mode is left out, and so are parameters, which a forward reads anew anyway. Twelve
    blocks take 0.1% of DeiT-Ti's time at batch 1.

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
        self._children = [(m._modules, tuple(m._modules.values())) for m in inner]
        # The first attribute that a module ever gets is `training`.
        self._attributes = [(m.__dict__, tuple(m.__dict__.values())[1:]) for m in (*inner, *leaves)]

    def holds(self) -> bool:
        """Whether nothing that was noted has changed."""
        for children, then in self._children:
            if tuple(children.values()) != then:
                return False
        if tuple(map(type, self._modules)) != self._types:
            return False
        for kind, forward in self._forwards:
            if kind.forward is not forward:
                return False
        try:
            # Tuples take what is identical for equal, and only look at what is not.
            for attributes, values in self._attributes:
                if tuple(attributes.values())[1:] != values:
                    return False
        except (RuntimeError, TypeError, ValueError):  # another tensor or array
            return False
        return True

    def guard(self) -> None:
        """Have a compiler guard what was noted: all that the traced code looks at."""
        for children, _ in self._children:
            for child in children.values():
                id(child)
        for attributes, _ in self._attributes:
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
