"""One model as two objects: a module that shares everything in another one, changes included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tokenred.core.errors import BackboneError

_GONE: Any = object()


class SharesBase(nn.Module):
    """Holds a base model's children, parameters and buffers under their own names.

    State dicts, optimisers and layer-decay rules see the usual names, and a change of one of the
    two objects (a new classifier, other weights) changes the other too. Training mode is the
    exception: set it here, and the base follows.

    Children are in two plain dictionaries, because libraries write into ``_modules`` directly.
    Every entry point compares both with their last state and carries changes over.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.training = base.training
        self.base: nn.Module
        # Not a submodule, or every name would get a prefix.
        own = self.__dict__
        own["base"] = base
        # The same dictionaries: a parameter replaced in one is replaced in both.
        for name in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            own[name] = getattr(base, name)
        own["_seen"] = ((), ())
        # Names that ever belonged to the base; what is set under one belongs to the base again.
        own["_lent"] = set()
        self._sync()

    def _sync(self) -> None:
        """Carry replaced, added or deleted children of one object over to the other.

        Raises:
            BackboneError: for a child that was replaced differently on each; nothing is changed.
        """
        mine, theirs = self._modules, self.base._modules
        if torch.compiler.is_dynamo_compiling():
            return
        if self._seen == (tuple(mine.items()), tuple(theirs.items())):
            return
        before = dict(self._seen[1])
        into_base: dict[str, Any] = {}
        for name in {**before, **theirs, **mine}:
            was, ours, its = (d.get(name, _GONE) for d in (before, mine, theirs))
            if ours is its or ours is was:
                continue
            if was is _GONE and its is _GONE and name not in self._lent:
                continue  # one's own
            if its is not was:
                raise BackboneError(
                    f"{name!r} was changed both on the {type(self).__name__} and on its base, "
                    "which are one model. Change it on one of them."
                )
            into_base[name] = ours
        for name, child in into_base.items():
            if child is _GONE:
                del theirs[name]
            else:
                theirs[name] = child
        # In the base's order, which optimisers and weight decay use; then the module's own
        # children.
        self._lent.update(theirs)
        own = {n: m for n, m in mine.items() if n not in self._lent}
        mine.clear()
        mine.update({**theirs, **own})
        self.__dict__["_seen"] = (tuple(mine.items()), tuple(theirs.items()))

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        self._sync()
        yield from super().named_modules(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        self._sync()
        yield from super().named_children()

    # A parent module calls these two before it reads the children.

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._sync()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._sync()
        super()._load_from_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, also for the base: the modules are the same."""
        self._sync()
        self.base.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._sync()
        self.base._apply(fn, recurse)
        for name, module in self._modules.items():
            if module is not None and name not in self.base._modules:
                module._apply(fn, recurse)
        return self

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base")
        if base is not None and not name.startswith("__"):
            self._sync()
            try:
                return getattr(base, name)
            except AttributeError:
                pass
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        base = self.__dict__.get("base")
        ours = name in self.__dict__ or hasattr(type(self), name)
        if base is None or ours or not (hasattr(base, name) or name in self._lent):
            super().__setattr__(name, value)
        else:
            # The base is what runs: a classifier or a method set only here would never be used.
            self._sync()
            setattr(base, name, value)
            self._sync()

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__ or not hasattr(self.base, name):
            super().__delattr__(name)
        else:
            self._sync()
            delattr(self.base, name)
            self._sync()

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
