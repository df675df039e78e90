"""A digest of a value: the same in every process, and different for different values.

For functions and classes that the user wrote, it covers the compiled code and everything it reads:
other functions and classes, globals, closures, defaults. Line numbers and pickling do not matter.
For installed packages it covers name and version; for tokenred's parts, a version number that is
raised when their results change. Data that code reads from files while it runs is not covered.
"""

import copyreg
import dataclasses
import enum
import functools
import hashlib
import io
import pickle
import random
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from tokenred.core.errors import PartError
from tokenred.core.provenance import is_installed, names_in, release_of, written_in


def digest(text: str) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def identity_of(value: Any, name: str, home: str = "") -> str:
    """16 hex digits over a value and everything it consists of.

    Args:
        value: a plain value, array, tensor, module, function, class or object.
        name: name of the value, for messages.
        home: a module whose package counts as the user's own, even if it is installed.

    Raises:
        PartError: for a value that changes with use or cannot be inspected; the message says where
            it is.
    """
    walk = _Walk(home)
    walk.tell(value, name)
    return walk.digest()


_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)


class _Walk:
    """Hashes a value and everything it consists of; how, `_RULES` say by type."""

    def __init__(self, home: str) -> None:
        self._hash = hashlib.sha256()
        self._root = home.partition(".")[0]
        # By address; references are kept, so that no address is reused.
        self._known: dict[int, tuple[int, Any]] = {}
        self._path: list[str] = []
        self._strict = True

    def digest(self) -> str:
        return self._hash.hexdigest()[:16]

    def put(self, *words: object) -> None:
        self._hash.update(("\0".join(map(str, words)) + "\n").encode("utf-8", "surrogatepass"))

    def put_bytes(self, array: Any) -> None:
        self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def put_name(self, value: Any, module: str | None, name: str) -> None:
        """Hash the name and version of installed code."""
        self.put(type(value).__name__, module, name, release_of(str(module)))

    def tell(self, value: Any, where: str = "") -> None:
        """Hash a value; ``where`` it is, for messages."""
        self._path.append(where)
        if type(value) in _PLAIN:
            self.put(type(value).__name__, repr(value))
        elif type(value) in (tuple, frozenset):  # equal values need not be the same object
            _items(self, value)
        elif id(value) in self._known:
            self.put("again", self._known[id(value)][0])
        else:
            self._known[id(value)] = len(self._known), value
            rule = next((rule for kinds, rule in _RULES if isinstance(value, kinds)), _object)
            rule(self, value) if callable(rule) else self.refuse(value, rule)
        self._path.pop()

    def tell_all(self, named: Iterable[tuple[str, Any]]) -> None:
        """Hash several values with their names."""
        for name, value in named:
            self.put(name)
            self.tell(value, name)

    def refuse(self, value: Any, why: str) -> None:
        """Refuse a value that cannot be hashed; in installed objects its type is used instead."""
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
        other = _Walk(self._root)
        other._strict, other._path = self._strict, self._path
        other.tell(value)
        return other.digest()


def _lock(walk: _Walk, value: Any) -> None:
    walk.put("lock")  # contains nothing that a result could depend on


def _member(walk: _Walk, value: enum.Enum) -> None:
    walk.tell(type(value))
    walk.put(value.name)


def _tensor(walk: _Walk, value: torch.Tensor) -> None:
    walk.put("tensor", value.dtype, tuple(value.shape), value.layout)
    if value.is_meta:
        return
    plain = value.detach()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain if plain.layout is torch.strided else plain.to_dense()
    plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
    # By bytes, since NumPy has no bfloat16.
    walk.put_bytes(plain.reshape(-1).view(torch.uint8).numpy())


def _array(walk: _Walk, value: Any) -> None:
    array = np.asarray(value)
    walk.put("array", array.dtype.descr, array.shape)
    if array.dtype.hasobject:
        _items(walk, array.reshape(-1).tolist())
    else:
        walk.put_bytes(array)


# Of a library's private attributes only these determine what a network computes.
_STATE = ("_parameters", "_buffers", "_modules", "_forward_pre_hooks", "_forward_hooks")
_OF_MODULES = frozenset(vars(nn.Module())) - {"training"}


def _network(walk: _Walk, value: nn.Module) -> None:
    own, held = walk.is_own(type(value).__module__), vars(value)
    walk.tell(type(value))
    with walk.inside(own):
        for name in _STATE:
            # The names of hooks are counters that depend on earlier hooks.
            hooks = name.endswith("hooks")
            walk.tell(list(held[name].values()) if hooks else dict(held[name]), name)
        # A library's private attributes may change as it runs.
        names = (n for n in sorted(held.keys() - _OF_MODULES) if own or not n.startswith("_"))
        walk.tell_all((name, held[name]) for name in names)


_CONTAINERS = (list, tuple, set, frozenset, types.MappingProxyType, dict)


def _items(walk: _Walk, value: Any) -> None:
    if type(value) not in _CONTAINERS and not isinstance(value, set | frozenset):
        _object(walk, value)  # its class may contain more
        return
    walk.tell(type(value))
    walk.put(len(value))
    if isinstance(value, set | frozenset):
        walk.put(*sorted(map(walk.apart, value)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            walk.tell(key)
            walk.tell(item, f"[{key!r}]")
    else:
        for place, item in enumerate(value):
            walk.tell(item, f"[{place}]")


def _class(walk: _Walk, cls: type) -> None:
    if not walk.is_own(cls.__module__):
        _installed_class(walk, cls)
        return
    walk.put("class", cls.__qualname__)
    members = vars(cls).get("_member_map_", {}) if issubclass(cls, enum.Enum) else {}
    with walk.inside(True):
        for base in cls.__mro__[1:]:
            walk.tell(base)
        walk.tell_all((name, member.value) for name, member in members.items())
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            walk.put("field", field.name)
            for given in (field.default, field.default_factory):
                # By type, since every pickled copy of a class is a separate object.
                if not isinstance(given, type(dataclasses.MISSING)):
                    walk.tell(given, field.name)
        for name, value in written_in(cls):
            # _value2member_map_ and the like belong to the enumeration itself.
            if name not in members and not (members and name[0] == name[-1] == "_"):
                walk.tell_all([(name, value)])


def _installed_class(walk: _Walk, cls: type) -> None:
    number = getattr(cls, "version", None)
    if type(number) is not int or not cls.__module__.startswith("tokenred."):
        walk.put_name(cls, cls.__module__, cls.__qualname__)
        return
    walk.put("part", cls.__module__, cls.__qualname__, number)
    # Attributes added to one of tokenred's parts are not covered by its version.
    for base in cls.__mro__:
        for name, value in sorted(vars(base).items()):
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if walk.is_own(getattr(function, "__globals__", {}).get("__name__", "tokenred")):
                walk.tell_all([(name, value)])


def _function(walk: _Walk, function: types.FunctionType) -> None:
    # A decorator may have copied __module__; the globals show where it was compiled.
    known, code = function.__globals__, function.__code__
    home = known.get("__name__", "")
    own = walk.is_own(home)
    if own:
        _code(walk, code)
    else:
        walk.put_name(function, home, getattr(code, "co_qualname", code.co_name))
    named = sorted(vars(function).items())
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    read = {f"closure {name!r}": _content(cell) for name, cell in cells}
    reads, names = names_in(code)
    if own:
        read |= {f"global {n!r}": known[n] for n in sorted(reads) if n in known}
    with walk.inside(own):
        walk.tell_all((n, v) for n, v in named if n == "__wrapped__" or not n.startswith("__"))
        if own:
            walk.tell((function.__defaults__, function.__kwdefaults__), "defaults")
        for name, value in read.items():
            walk.put(name)
            if isinstance(value, types.ModuleType):
                _used_module(walk, value, names)
            else:
                walk.tell(value, name)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


def _code(walk: _Walk, code: types.CodeType) -> None:
    walk.put(sys.implementation.cache_tag, code.co_code.hex())
    # Of the flags only the kind of function, not the imports from __future__.
    walk.put(getattr(code, "co_exceptiontable", b"").hex(), code.co_flags & 0x3FF)
    walk.put(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    walk.put(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _code(walk, constant)
        else:
            walk.tell(constant)


def _module(walk: _Walk, module: types.ModuleType) -> None:
    _used_module(walk, module, frozenset(vars(module)))


def _used_module(
    walk: _Walk, module: types.ModuleType, names: frozenset[str], outer: tuple[str, ...] = ()
) -> None:
    """A module; of a user's own, only what the code uses of it."""
    name = module.__name__
    walk.put("module", name)
    if not walk.is_own(name):
        walk.put(release_of(name))
    elif name not in outer:
        for inner in sorted(names & vars(module).keys()):
            value = vars(module)[inner]
            walk.put(inner)
            if isinstance(value, types.ModuleType):
                _used_module(walk, value, names, (*outer, name))
            elif not inner.startswith("__"):
                walk.tell(value, f"{name}.{inner}")


def _compiled(walk: _Walk, value: Any) -> None:
    walk.put_name(value, getattr(value, "__module__", None), value.__qualname__)
    of = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    if of is not None and not isinstance(of, types.ModuleType):
        walk.tell(of, "self")


# What wraps functions, by what it holds.
_WRAPPERS: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.partial: ("func", "args", "keywords"),
    functools.partialmethod: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    type(functools.lru_cache(len)): ("__wrapped__",),
}


def _wrapper(walk: _Walk, value: Any) -> None:
    kind = next(kind for kind in _WRAPPERS if isinstance(value, kind))
    walk.put(kind.__name__)
    for name in _WRAPPERS[kind]:
        walk.tell(getattr(value, name), name)


def _object(walk: _Walk, value: Any) -> None:
    """As it would be pickled: its constructor and arguments."""
    kind = type(value)
    if kind.__module__ in ("typing", "types"):  # an annotation
        walk.put(value)
        return
    walk.tell(kind)
    try:
        reduce = copyreg.dispatch_table.get(kind)
        found = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if reduce is None else reduce(value)
    except Exception:  # a class that cannot be pickled may raise anything
        walk.refuse(value, "cannot be inspected")
        return
    if isinstance(found, str):
        walk.put_name(value, kind.__module__, found)
        return
    with walk.inside(walk.is_own(kind.__module__)):
        for piece in found:
            walk.tell(list(piece) if isinstance(piece, Iterator) else piece)


_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator)
_BUILT_IN = (
    types.BuiltinFunctionType, types.MethodWrapperType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType,
)  # fmt: skip
# The first that fits; a text is the reason why a value is refused.
_RULES: tuple[tuple[tuple[type, ...], Callable[[_Walk, Any], None] | str], ...] = (
    ((random.Random, torch.Generator, *_GENERATORS), "changes whenever it is drawn from"),
    ((io.IOBase, Iterator), "changes as it is read"),
    ((type(threading.Lock()), type(threading.RLock())), _lock),
    ((enum.Enum,), _member),
    ((torch.Tensor,), _tensor),
    ((np.ndarray, np.generic), _array),
    ((nn.Module,), _network),
    (_CONTAINERS, _items),
    ((type,), _class),
    ((types.FunctionType,), _function),
    ((types.ModuleType,), _module),
    ((types.CodeType,), _code),
    (_BUILT_IN, _compiled),
    (tuple(_WRAPPERS), _wrapper),
)
