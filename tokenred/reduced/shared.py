"""One model as two objects: a module that shares everything in another one, changes included."""

from collections import ChainMap
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self


class _Children(ChainMap[str, Any]):
    """A base's children, in its own dictionary, and after them those of the module that shares it.

    A child that is deleted and set again stays the base's.
    """

    def __init__(self, base: dict[str, Any], own: dict[str, Any] | None = None) -> None:
        super().__init__(base, {} if own is None else own)
        self._lent = frozenset(base)

    def __iter__(self) -> Iterator[str]:
        return iter({**self.maps[0], **self.maps[1]})

    def __setitem__(self, name: str, child: Any) -> None:
        shared = name in self.maps[0] or name in self._lent
        self.maps[0 if shared else 1][name] = child

    def __delitem__(self, name: str) -> None:
        del self.maps[0 if name in self.maps[0] else 1][name]


class SharesBase(nn.Module):
    """Holds a base model's children, parameters and buffers under their own names.

    They are in the base's dictionaries, into which libraries write directly: whatever is changed on
    one of the two objects (a new classifier, other weights) is changed on the other, and state
    dicts, optimisers and layer-decay rules see the usual names. Training mode is the exception: set
    it here, and the base follows.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.training = base.training
        self.base: nn.Module
        # Not a submodule, or every name would get a prefix.
        own = self.__dict__
        own["base"] = base
        for name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            own[name] = getattr(base, name)
        own["_modules"] = _Children(base._modules)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, also for the base: the modules are the same."""
        self.base.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.base._apply(fn, recurse)
        for name, module in self._modules.items():
            if module is not None and name not in self.base._modules:
                module._apply(fn, recurse)
        return self

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base")
        if base is not None and not name.startswith("__"):
            try:
                return getattr(base, name)
            except AttributeError:
                pass
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        base = self.__dict__.get("base")
        ours = name in self.__dict__ or hasattr(type(self), name)
        if base is None or ours or not hasattr(base, name):
            super().__setattr__(name, value)
        else:
            # The base is what runs: a classifier or a method set only here would never be used.
            setattr(base, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__ or not hasattr(self.base, name):
            super().__delattr__(name)
        else:
            delattr(self.base, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.base)})  # type: ignore[no-untyped-call]


class Watch:
    """What a model consisted of at one moment, cheap to compare with its current state.

    Compared by identity: the children of all modules, their classes and those classes' ``forward``,
    and the plain attributes of modules with children and of ``leaves``. Training mode is left out,
    and so are parameters, which a forward reads again anyway. Twelve blocks take 0.1% of DeiT-Ti's
    time at batch 1.

    Args:
        model: the model; None means that it has not been examined yet.
        leaves: modules without children whose attributes count, too.
    """

    def __init__(self, model: nn.Module | None, leaves: tuple[nn.Module, ...] = ()) -> None:
        self._known = model is not None
        self._modules = [] if model is None else list(model.modules())
        self._types = tuple(map(type, self._modules))
        kinds: dict[Any, None] = dict.fromkeys(self._types)
        self._forwards = [(kind, kind.forward) for kind in kinds]
        inner = [m for m in self._modules if m._modules]
        self._children = [(m._modules, tuple(m._modules.values())) for m in inner]
        # The first attribute that a module gets is `training`.
        self._attributes = [(m.__dict__, tuple(m.__dict__.values())[1:]) for m in (*inner, *leaves)]

    def holds(self) -> bool:
        """Whether nothing recorded has changed."""
        for children, then in self._children:
            if tuple(children.values()) != then:
                return False
        if tuple(map(type, self._modules)) != self._types:
            return False
        for kind, forward in self._forwards:
            if kind.forward is not forward:
                return False
        try:
            # Tuples treat identical items as equal and compare only the others.
            for attributes, values in self._attributes:
                if tuple(attributes.values())[1:] != values:
                    return False
        except (RuntimeError, TypeError, ValueError):  # another tensor or array
            return False
        return self._known

    def guard(self) -> None:
        """Let a compiler guard what was recorded: everything that the traced code reads."""
        for children, _ in self._children:
            for child in children.values():
                id(child)
        for attributes, _ in self._attributes:
            _ = "forward" in attributes

    def __reduce__(self) -> Any:
        # Nothing is known about a copy of the model: it is examined again.
        return Watch, (None,)
