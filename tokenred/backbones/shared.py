"""One model as two objects: a module that shares all that another one holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

__all__ = ["SharesBase"]


class SharesBase(nn.Module):
    """Holds a base model's children, parameters and buffers under their own names.

    State dicts, optimisers and layer-decay rules meet the names they know, and what is changed on
    one of the two objects (a new classifier, other weights) is changed on the other. Training mode
    is the exception: set it here, and the base follows.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.training = base.training
        self.base: nn.Module
        # Not as a submodule, or every name would get a prefix.
        own = self.__dict__
        own["base"] = base
        # The very dictionaries: a parameter replaced in one is replaced in both.
        own["_parameters"] = base._parameters
        own["_buffers"] = base._buffers
        own["_non_persistent_buffers_set"] = base._non_persistent_buffers_set
        self._adopt()

    def _adopt(self) -> None:
        """Hold the base's children beside one's own; they may have been replaced there."""
        self._modules.update(self.base._modules)

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """As of any module."""
        self._adopt()
        yield from super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The base's entries under the base's keys, and one's own."""
        self._adopt()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the base as well: it is the same weights."""
        self._adopt()
        return super().load_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Training mode, of the base as well: its modules are the same."""
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
        if base is None or ours or not _holds(base, name):
            super().__setattr__(name, value)
        else:
            # The base runs: a classifier assigned here only would never be used.
            setattr(base, name, value)
            self._adopt()

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.base)})  # type: ignore[no-untyped-call]


def _holds(module: nn.Module, name: str) -> bool:
    places = (module.__dict__, module._modules, module._parameters, module._buffers)
    return any(name in place for place in places)
