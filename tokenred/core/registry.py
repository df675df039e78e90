"""The kinds of parts, each with a registry: decorators add entries, look-up ignores case.

A built-in part is just a file in the folder of its kind: the first look-up imports them all.
Plug-ins are loaded by the first look-up that lists names or finds no match.
"""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from tokenred.core import plugins
from tokenred.core.errors import IF_OWN, ConfigError, PartError, UnknownNameError, shown
from tokenred.core.values import checked

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: as it was registered.
        make: the class or function.
        plugin: the package whose plug-in registered it, or "".
    """

    name: str
    make: Callable[..., Any]
    plugin: str = ""

    @property
    def source(self) -> str:
        """The module and name of `make`."""
        return f"{self.make.__module__}.{self.make.__qualname__}"

    @property
    def origin(self) -> str:
        """The source, and the plug-in if it comes from one; for messages."""
        return f"{self.source} (plug-in {self.plugin})" if self.plugin else self.source

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The parameter names of `make`."""
        return frozenset(inspect.signature(self.make).parameters)

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        doc = inspect.getdoc(self.make) or ""
        # A dataclass without a docstring gets its signature as docstring, which is no help.
        return "" if doc.startswith(f"{self.make.__name__}(") else doc.split("\n")[0]


class Registry(Generic[T]):
    """The registered names of one kind of part.

    Args:
        kind: the kind of an entry, for messages ("score mod").
        plural: the plural ("score_mods"), as in ``tokenred.score_mods``.
        contract: module and name of the base class of registered classes; for functions, the class
            of their results.
        folder: the package whose modules register the built-in entries.
    """

    def __init__(self, kind: str, plural: str, contract: str, folder: str) -> None:
        self.kind, self.plural, self.contract, self.folder = kind, plural, contract, folder
        self._loaded = False
        self._entries: dict[str, Entry] = {}

    @cached_property
    def base(self) -> type[T]:
        """The class of the contract."""
        module, _, name = self.contract.rpartition(".")
        found: type[T] = getattr(importlib.import_module(module), name)
        return found

    def register(self, name: str, *, overwrite: bool = False) -> Callable[[C], C]:
        """Class decorator that adds a part under ``name``.

        Running the same definition again (a notebook cell) replaces it. A plug-in may not replace
        existing entries, so installing a package never changes the meaning of a name.

        Raises:
            PartError: if the class does not derive from the registry's base.
            ConfigError: if the name is empty or already taken.
        """
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"a {self.kind} needs a name, got {shown(name)}.")

        def add(make: C) -> C:
            bases = inspect.getmro(make) if inspect.isclass(make) else (self.base,)
            if self.base not in bases:
                raise PartError(
                    f"{self.kind} {name!r}: {make.__name__} must derive from "
                    f"tokenred.{self.base.__name__}, but its bases are "
                    f"{', '.join(b.__name__ for b in bases[1:])}."
                )
            if not callable(make):
                raise PartError(f"{self.kind} {name!r} must be callable, got {shown(make)}.")
            if not inspect.isclass(make):  # parts check their own parameters
                make = checked(make)
            if not self._is_own(make):
                self._load()
            self._put(Entry(name, make, plugins.loading()), overwrite)
            return make

        return add

    def __getitem__(self, name: str) -> Entry:
        """The entry of a name, ignoring case.

        Raises:
            UnknownNameError: with the closest names.
        """
        entry = self._find(name)
        if entry is None:
            others = [key for key, kind in KINDS.items() if kind is not self and name in kind]
            told = f" It is a {KINDS[others[0]].kind}" if others else IF_OWN.rstrip(".")
            if others and self.kind == "strategy":
                told += f", which goes into a strategy: 'gtp:{others[0]}={name}'"
            raise UnknownNameError(f"{UnknownNameError.of(self.kind, name, self.names())}{told}.")
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
            parameters: passed on if the named part has them, otherwise ignored, so that one set of
                arguments fits every part (``M`` with the graph "none").

        Raises:
            UnknownNameError: for an unknown name.
            PartError: for an object of another kind.
        """
        if part is None and "none" in self:  # a reader of "none" as None means that name
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
            + (f" Write it with parentheses: {part.__name__}()." if inspect.isclass(part) else "")
        )

    @property
    def extended(self) -> bool:
        """Whether parts other than tokenred's are registered so far; nothing is imported."""
        return not all(self._is_own(entry.make) for entry in self._entries.values())

    def built_in(self) -> dict[str, Callable[..., Any]]:
        """The classes or functions of tokenred's own parts, by Python name."""
        self._load()
        made = (entry.make for entry in self._entries.values())
        return {make.__name__: make for make in made if self._is_own(make)}

    def _is_own(self, make: Callable[..., Any]) -> bool:
        return make.__module__.startswith(f"{self.folder}.")

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
        if old and old.source != entry.source and (entry.plugin or not overwrite):
            own = f" of {entry.origin}" if entry.plugin else ""
            instead = "choose another name, or pass overwrite=True."
            raise ConfigError(
                f"{self.kind} {entry.name!r}{own} is taken by {old.origin}; "
                f"{'a plug-in needs its own names.' if entry.plugin else instead}"
            )

        def undo() -> None:
            self._entries.pop(key, None)
            if old:
                self._entries[key] = old

        self._entries[key] = entry
        plugins.note(self.kind, entry.name, undo)

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self.folder)  # which may load all by itself
        if not self._loaded:
            self._loaded = True
            for found in pkgutil.walk_packages(package.__path__, f"{self.folder}."):
                importlib.import_module(found.name)


_S = "tokenred.strategies"
_BASE = f"{_S}.base"
KINDS: dict[str, Registry[Any]] = {
    "strategy": Registry("strategy", "strategies", f"{_S}.strategy.Strategy", f"{_S}.recipes"),
    "scorer": Registry("scorer", "scorers", f"{_BASE}.Scorer", f"{_S}.scorers"),
    "selector": Registry("selector", "selectors", f"{_BASE}.Selector", f"{_S}.selectors"),
    "graph": Registry("graph", "graphs", "tokenred.graphs.base.GraphBuilder", "tokenred.graphs"),
    "fuser": Registry("fuser", "fusers", f"{_BASE}.Fuser", f"{_S}.fusers"),
    "schedule": Registry("schedule", "schedules", f"{_S}.schedule.Schedule", f"{_S}.schedules"),
    "router": Registry("router", "routers", f"{_BASE}.Router", f"{_S}.routers"),
    "embedding": Registry("embedding", "embeddings", f"{_BASE}.Embedding", f"{_S}.embeddings"),
    "score_mods": Registry(
        "score mod", "score_mods", "tokenred.attention.score_mods.ScoreMod", f"{_S}.score_mods"
    ),
}
"""All kinds of parts, by the field of a `Strategy` or a part that contains one."""


def gather(folder: str) -> list[str]:
    """Put the built-in parts into the package of their folder, next to `register` and `names`.

    Returns:
        Their Python names.
    """
    registry = next(r for r in KINDS.values() if r.folder == folder)
    parts = registry.built_in()
    vars(sys.modules[folder]).update(parts, register=registry.register, names=registry.names)
    return sorted(parts)
