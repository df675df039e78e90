"""Named parts: registered by a decorator, looked up without regard to case."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tokenred.core.errors import ConfigError, PartError, UnknownNameError

__all__ = ["Entry", "Registry"]

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered name: what it makes, one line about it, and where it comes from."""

    name: str
    make: Callable[..., Any]
    source: str

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

        Running the same definition again (a notebook cell) replaces it.

        Raises:
            PartError: where the class does not derive from the registry's base.
            ConfigError: where the name is empty or belongs to something else.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a {self.kind} needs a name, got {name!r}.")

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
            self._load()
            old = self._entries.get(name.casefold())
            if old and not overwrite and _identity(old.make) != _identity(make):
                raise ConfigError(
                    f"{self.kind} {name!r} is taken by {old.source}; "
                    "choose another name, or pass overwrite=True."
                )
            self._entries[name.casefold()] = Entry(name, make, ".".join(_identity(make)))
            return make

        return add

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name, in any case.

        Raises:
            UnknownNameError: with the closest names.
        """
        self._load()
        entry = self._entries.get(name.casefold()) if isinstance(name, str) else None
        if entry is None:
            raise UnknownNameError.of(self.kind, name, self.names())
        return entry

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda e: e.name.casefold()))

    def __contains__(self, name: object) -> bool:
        self._load()
        return isinstance(name, str) and name.casefold() in self._entries

    def names(self) -> list[str]:
        """All names, sorted."""
        return [e.name for e in self]

    def name_of(self, part: object) -> str | None:
        """The name under which the class of ``part`` is registered, if it is."""
        self._load()
        return next((e.name for e in self._entries.values() if e.make is type(part)), None)

    def create(self, part: str | T, **parameters: Any) -> T:
        """A part from its name, or the part itself.

        Args:
            part: a name or an instance.
            parameters: passed on where the named part has them, left aside where it does not, so
                that one set of arguments fits every part (``M`` with the graph "none").

        Raises:
            UnknownNameError: for an unknown name.
            PartError: for an object of another kind.
        """
        if isinstance(part, str):
            make = self[part].make
            accepted = inspect.signature(make).parameters
            made = make(**{k: v for k, v in parameters.items() if k in accepted})
            assert isinstance(made, self.base)
            return made
        if isinstance(part, self.base):
            return part
        raise PartError(
            f"expected a {self.kind}: a name ({', '.join(self.names())}) or an instance of "
            f"tokenred.{self.base.__name__}; got {part!r}."
            + (" Write it with parentheses: Part()." if inspect.isclass(part) else "")
        )

    def _load(self) -> None:
        if self._home is not None:
            home, self._home = self._home, None
            importlib.import_module(home)


def _identity(make: Callable[..., Any]) -> tuple[str, str]:
    return make.__module__, make.__qualname__
