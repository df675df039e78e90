"""Traverse any value and hash its contents."""

from __future__ import annotations

import copyreg
import enum
import hashlib
import io
import pickle
import random
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from tokenred.core.errors import PartError
from tokenred.core.provenance import is_installed, release_of

__all__ = ["Teller", "tells"]

Tell = Callable[["Teller", Any], None]
_HOW: list[tuple[tuple[type, ...], Tell]] = []
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)
_CONTAINERS = (list, tuple, set, frozenset, types.MappingProxyType, dict)
# Of a library's private attributes only these determine what a network computes.
_STATE = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}


def tells(*kinds: type) -> Callable[[Tell], Tell]:
    """Decorator for the function that hashes these types; earlier types take precedence."""

    def add(how: Tell) -> Tell:
        _HOW.append((kinds, how))
        return how

    return add


class Teller:
    """Hashes a value and everything it consists of.

    Args:
        home: a module whose package counts as the user's own, even if it is installed.
    """

    def __init__(self, home: str) -> None:
        self._hash = hashlib.sha256()
        self._root = home.partition(".")[0]
        # By address; references are kept, so that no address is reused.
        self._known: dict[int, tuple[int, Any]] = {}
        self._path: list[str] = []
        self._strict = True

    def digest(self) -> str:
        """16 hex digits of what was hashed."""
        return self._hash.hexdigest()[:16]

    def put(self, *words: object) -> None:
        """Hash some words."""
        self._hash.update(("\0".join(map(str, words)) + "\n").encode("utf-8", "surrogatepass"))

    def put_bytes(self, array: Any) -> None:
        """Hash the bytes of an array."""
        self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def put_name(self, value: Any, module: str | None, name: str) -> None:
        """Hash the name and version of third-party code."""
        self.put(type(value).__name__, module, name, release_of(str(module)))

    def tell(self, value: Any, where: str = "") -> None:
        """Hash a value.

        Args:
            value: anything.
            where: its location, for messages.

        Raises:
            PartError: for a value that changes with use or cannot be inspected.
        """
        self._path.append(where)
        if type(value) in _PLAIN:
            self.put(type(value).__name__, repr(value))
        elif type(value) in (tuple, frozenset):  # equal values need not be the same object
            _items(self, value)
        elif id(value) in self._known:
            self.put("again", self._known[id(value)][0])
        else:
            self._known[id(value)] = len(self._known), value
            next((how for kinds, how in _HOW if isinstance(value, kinds)), _object)(self, value)
        self._path.pop()

    def refuse(self, value: Any, why: str) -> None:
        """Refuse a value that cannot be hashed; in third-party objects its type is used instead.

        Raises:
            PartError: inside the user's own objects.
        """
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        if self._strict:
            raise PartError(
                f"{' > '.join(filter(None, self._path))}: a {kind} {why}, so it cannot identify a "
                "stored result. Create it inside the function from plain values, such as a seed; "
                "fields, globals and closures may contain numbers, strings, arrays, tensors, "
                "modules and lists of these."
            )
        self.put(kind)

    @contextmanager
    def inside(self, own: bool) -> Iterator[None]:
        """In the user's own objects everything must be hashable, in others as much as possible."""
        before, self._strict = self._strict, own
        yield
        self._strict = before

    def is_own(self, module: Any) -> bool:
        """Whether a module belongs to the user."""
        top = str(module).partition(".")[0]
        return top != "tokenred" and (top == self._root or not is_installed(str(module)))

    def apart(self, value: Any) -> str:
        """The digest of a value by itself."""
        other = Teller(self._root)
        other._strict, other._path = self._strict, self._path
        other.tell(value)
        return other.digest()


def _refused(why: str) -> Tell:
    return lambda teller, value: teller.refuse(value, why)


tells(
    random.Random,
    torch.Generator,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
)(_refused("changes whenever it is drawn from"))
tells(io.IOBase, Iterator)(_refused("changes as it is read"))


@tells(type(threading.Lock()), type(threading.RLock()))
def _lock(teller: Teller, value: Any) -> None:
    teller.put("lock")  # contains nothing that a result could depend on


@tells(enum.Enum)
def _member(teller: Teller, value: enum.Enum) -> None:
    teller.tell(type(value))
    teller.put(value.name)


@tells(torch.Tensor)
def _tensor(teller: Teller, value: torch.Tensor) -> None:
    teller.put("tensor", value.dtype, tuple(value.shape), value.layout)
    if value.is_meta:
        return
    plain = value.detach()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain if plain.layout is torch.strided else plain.to_dense()
    plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
    # By bytes, since NumPy has no bfloat16.
    teller.put_bytes(plain.reshape(-1).view(torch.uint8).numpy())


@tells(np.ndarray, np.generic)
def _array(teller: Teller, value: Any) -> None:
    array = np.asarray(value)
    teller.put("array", array.dtype.descr, array.shape)
    if array.dtype.hasobject:
        _items(teller, array.reshape(-1).tolist())
    else:
        teller.put_bytes(array)


@tells(nn.Module)
def _network(teller: Teller, value: nn.Module) -> None:
    own = teller.is_own(type(value).__module__)
    teller.tell(type(value))
    with teller.inside(own):
        for name in _STATE:
            told = vars(value)[name]
            # The names of hooks are counters that depend on earlier hooks.
            told = list(told.values()) if name.endswith("hooks") else dict(told)
            teller.tell(told, name)
        for name, item in sorted(vars(value).items()):
            # A library's private attributes may change as it runs.
            if name not in _OF_MODULES and (own or not name.startswith("_")):
                teller.put(name)
                teller.tell(item, name)


@tells(*_CONTAINERS)
def _items(teller: Teller, value: Any) -> None:
    if type(value) not in _CONTAINERS and not isinstance(value, set | frozenset):
        _object(teller, value)  # its class may contain more
        return
    teller.tell(type(value))
    teller.put(len(value))
    if isinstance(value, set | frozenset):
        teller.put(*sorted(map(teller.apart, value)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            teller.tell(key)
            teller.tell(item, f"[{key!r}]")
    else:
        for place, item in enumerate(value):
            teller.tell(item, f"[{place}]")


def _object(teller: Teller, value: Any) -> None:
    """As it would be pickled: its constructor and arguments."""
    kind = type(value)
    module = kind.__module__
    if module in ("typing", "types"):  # an annotation
        teller.put(value)
        return
    teller.tell(kind)
    try:
        reduce = copyreg.dispatch_table.get(kind)
        found = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if reduce is None else reduce(value)
    except Exception:  # a class that cannot be pickled may raise anything
        teller.refuse(value, "cannot be inspected")
        return
    if isinstance(found, str):
        teller.put_name(value, module, found)
        return
    with teller.inside(teller.is_own(module)):
        for piece in found:
            teller.tell(list(piece) if isinstance(piece, Iterator) else piece)
