"""Named parts: registered by a decorator, looked up without regard to case.

Plug-ins are loaded by the first look-up that lists names or misses one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from tokenred.core import plugins
from tokenred.core.errors import ConfigError, PartError, UnknownNameError
from tokenred.core.values import checked
from tokenred.core.wording import shown

__all__ = ["Entry", "Registry"]

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered name: what it makes, one line about it, and where it comes from.

    Attributes:
        name: as it was registered.
        make: the class or function.
        source: the module and name of `make`.
        plugin: the package whose plug-in registered it, or "".
    """

    name: str
    make: Callable[..., Any]
    source: str
    plugin: str = ""

    @property
    def origin(self) -> str:
        """The source, with the plug-in where it is of one; for messages."""
        return f"{self.source} (plug-in {self.plugin})" if self.plugin else self.source

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names that `make` takes."""
        return frozenset(inspect.signature(self.make).parameters)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        doc = inspect.getdoc(self.make) or ""
        return doc.split("\n")[0]


class Registry(Generic[T]):
    """Names of one kind of part.

    Args:
        kind: what an entry is, for messages ("scorer").
        base: the class that a registered class must derive from and an instance must be of;
            a registry of functions gives the class of what they return.
        home: the module that registers the built-in ones; imported at the first look-up, so that
            a registry can be used without importing what it holds.
    """

    def __init__(self, kind: str, base: type[T], home: str) -> None:
        self.kind = kind
        self.base = base
        self._home: str | None = home
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, *, overwrite: bool = False) -> Callable[[C], C]:
        """Class decorator that adds a part under ``name``.

        Running the same definition again (a notebook cell) replaces it. A plug-in may not replace
        what is there, so that installing a package never changes what a name means.

        Raises:
            PartError: where the class does not derive from the registry's base.
            ConfigError: where the name is empty or belongs to something else.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a {self.kind} needs a name, got {shown(name)}.")

        def add(make: C) -> C:
            bases = inspect.getmro(make) if inspect.isclass(make) else (self.base,)
            if self.base not in bases:
                raise PartError(
                    f"{self.kind} {name!r}: {make.__name__} must derive from "
                    f"tokenred.{self.base.__name__}, its bases are "
                    f"{', '.join(b.__name__ for b in bases[1:])}."
                )
            if not callable(make):
                raise PartError(f"{self.kind} {name!r} must be callable, got {make!r}.")
            if not inspect.isclass(make):  # a part reads its parameters already
                make = checked(make)
            self._load()
            self._put(Entry(name, make, ".".join(_identity(make)), plugins.loading()), overwrite)
            return make

        return add

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name, in any case.

        Raises:
            UnknownNameError: with the closest names.
        """
        entry = self._find(name)
        if entry is None:
            raise UnknownNameError.of(self.kind, name, self.names())
        return entry

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        plugins.load_plugins()
        return iter(sorted(self._entries.values(), key=lambda e: e.name.casefold()))

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def names(self) -> list[str]:
        """All names, sorted."""
        return [e.name for e in self]

    def name_of(self, part: object) -> str | None:
        """The name under which the class of ``part`` is registered, if it is."""
        self._load()
        if all(entry.make is not type(part) for entry in self._entries.values()):
            plugins.load_plugins()
        return next((e.name for e in self._entries.values() if e.make is type(part)), None)

    def create(self, part: str | T | None, **parameters: Any) -> T:
        """A part from its name, or the part itself.

        Args:
            part: a name or an instance.
            parameters: passed on where the named part has them, left aside where it does not, so
                that one set of arguments fits every part (``M`` with the graph "none").

        Raises:
            UnknownNameError: for an unknown name.
            PartError: for an object of another kind.
        """
        if part is None and "none" in self:  # what reads "none" as None means that name
            part = "none"
        if isinstance(part, str):
            entry = self[part]
            made = entry.make(**{k: v for k, v in parameters.items() if k in entry.parameters})
            assert isinstance(made, self.base)
            return made
        if isinstance(part, self.base):
            return part
        raise PartError(
            f"expected a {self.kind}: a name ({', '.join(self.names())}) or an instance of "
            f"tokenred.{self.base.__name__}; got {shown(part)}."
            + (" Write it with parentheses: Part()." if inspect.isclass(part) else "")
        )

    def _find(self, name: object) -> Entry | None:
        if not isinstance(name, str):
            return None
        self._load()
        if name.casefold() not in self._entries:
            plugins.load_plugins()
        return self._entries.get(name.casefold())

    def _put(self, entry: Entry, overwrite: bool) -> None:
        key = entry.name.casefold()
        old = self._entries.get(key)
        if old and _identity(old.make) != _identity(entry.make):
            if entry.plugin:
                raise ConfigError(
                    f"{self.kind} {entry.name!r} of {entry.origin} is taken by {old.origin}; "
                    "a plug-in needs names of its own."
                )
            if not overwrite:
                raise ConfigError(
                    f"{self.kind} {entry.name!r} is taken by {old.origin}; "
                    "choose another name, or pass overwrite=True."
                )

        def undo() -> None:
            self._entries.pop(key, None)
            if old:
                self._entries[key] = old

        self._entries[key] = entry
        plugins.note(self.kind, entry.name, undo)

    def _load(self) -> None:
        if self._home is not None:
            home, self._home = self._home, None
            importlib.import_module(home)


def _identity(make: Callable[..., Any]) -> tuple[str, str]:
    return make.__module__, make.__qualname__
