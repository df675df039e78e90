"""A digest of a value: the same in every process, and different for different values.

For functions and classes that the user wrote, it covers the compiled code and everything it reads:
other functions and classes, globals, closures, defaults. Line numbers and pickling do not matter.
For installed packages it covers name and version; for tokenred's parts, a version number that is
raised when their results change. Data that code reads from files while it runs is not covered.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import sys
import types
from typing import Any

from tokenred.core.provenance import release_of, written_in
from tokenred.core.telling import Teller, tells

__all__ = ["digest", "identity_of"]


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
    teller = Teller(home)
    teller.tell(value, name)
    return teller.digest()


@tells(type)
def _class(teller: Teller, cls: type) -> None:
    if not teller.is_own(cls.__module__):
        _class_of_others(teller, cls)
        return
    teller.put("class", cls.__qualname__)
    with teller.inside(True):
        for base in cls.__mro__[1:]:
            teller.tell(base)
        members = vars(cls).get("_member_map_", {}) if issubclass(cls, enum.Enum) else {}
        for name, member in members.items():
            teller.put(name)
            teller.tell(member.value, name)
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            teller.put("field", field.name)
            for given in (field.default, field.default_factory):
                # By type, since every pickled copy of a class is a separate object.
                if not isinstance(given, type(dataclasses.MISSING)):
                    teller.tell(given, field.name)
        for name, value in written_in(cls):
            # _value2member_map_ and the like belong to the enumeration itself.
            if name not in members and not (members and name[0] == name[-1] == "_"):
                teller.put(name)
                teller.tell(value, name)


def _class_of_others(teller: Teller, cls: type) -> None:
    number = getattr(cls, "version", None)
    if type(number) is not int or not cls.__module__.startswith("tokenred."):
        teller.put_name(cls, cls.__module__, cls.__qualname__)
        return
    teller.put("part", cls.__module__, cls.__qualname__, number)
    # Attributes added to one of tokenred's parts are not covered by its version.
    for base in cls.__mro__:
        for name, value in sorted(vars(base).items()):
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if teller.is_own(getattr(function, "__globals__", {}).get("__name__", "tokenred")):
                teller.put(name)
                teller.tell(value, name)


@tells(types.FunctionType)
def _function(teller: Teller, function: types.FunctionType) -> None:
    # A decorator may have copied __module__; the globals show where it was compiled.
    home, code = function.__globals__.get("__name__", ""), function.__code__
    own = teller.is_own(home)
    if own:
        _code(teller, code)
    else:
        teller.put_name(function, home, getattr(code, "co_qualname", code.co_name))
    with teller.inside(own):
        for name, value in sorted(vars(function).items()):
            if name == "__wrapped__" or not name.startswith("__"):
                teller.put(name)
                teller.tell(value, name)
        if own:
            teller.tell((function.__defaults__, function.__kwdefaults__), "defaults")
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        read = {f"closure {name!r}": cell for name, cell in cells}
        if own:
            known = function.__globals__
            read |= {f"global {n!r}": known[n] for n in _globals_of(code) if n in known}
        for name, value in read.items():
            teller.put(name)
            if isinstance(value, types.CellType):
                value = _content(value)
            if isinstance(value, types.ModuleType):
                _module(teller, value, _names_in(code))
            else:
                teller.tell(value, name)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


@tells(types.ModuleType)
def _whole_module(teller: Teller, module: types.ModuleType) -> None:
    _module(teller, module, frozenset(vars(module)))


def _module(
    teller: Teller, module: types.ModuleType, names: frozenset[str], outer: tuple[str, ...] = ()
) -> None:
    """A module; for a user's own, only what the code uses from it."""
    name = module.__name__
    teller.put("module", name)
    if not teller.is_own(name):
        teller.put(release_of(name))
    elif name not in outer:
        for inner in sorted(names & vars(module).keys()):
            value = vars(module)[inner]
            teller.put(inner)
            if isinstance(value, types.ModuleType):
                _module(teller, value, names, (*outer, name))
            elif not inner.startswith("__"):
                teller.tell(value, f"{name}.{inner}")


@tells(types.CodeType)
def _code(teller: Teller, code: types.CodeType) -> None:
    teller.put(sys.implementation.cache_tag, code.co_code.hex())
    # Of the flags only the kind of function, not the imports from __future__.
    teller.put(getattr(code, "co_exceptiontable", b"").hex(), code.co_flags & 0x3FF)
    teller.put(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    teller.put(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _code(teller, constant)
        else:
            teller.tell(constant)


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """The code of a function and of its inner functions."""
    inner = (_codes(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return [code, *(each for several in inner for each in several)]


@functools.lru_cache(maxsize=4096)
def _globals_of(code: types.CodeType) -> tuple[str, ...]:
    steps = (step for each in _codes(code) for step in dis.get_instructions(each))
    names = (str(s.argval) for s in steps if "LOAD_" in s.opname and _is_global(s.opname))
    return tuple(sorted(set(names)))


def _is_global(operation: str) -> bool:
    return "GLOBAL" in operation or operation == "LOAD_NAME"


def _names_in(code: types.CodeType) -> frozenset[str]:
    return frozenset(name for each in _codes(code) for name in each.co_names)


@tells(types.MethodType)
def _method(teller: Teller, value: types.MethodType) -> None:
    teller.tell(value.__func__)
    teller.tell(value.__self__, "self")


@tells(
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
def _compiled(teller: Teller, value: Any) -> None:
    teller.put_name(value, getattr(value, "__module__", None), value.__qualname__)
    of = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    if of is not None and not isinstance(of, types.ModuleType):
        teller.tell(of, "self")


def _made_of(kind: type, *names: str) -> None:
    @tells(kind)
    def tell(teller: Teller, value: Any) -> None:
        teller.put(kind.__name__)
        for name in names:
            teller.tell(getattr(value, name))


_made_of(property, "fget", "fset", "fdel")
_made_of(staticmethod, "__func__")
_made_of(classmethod, "__func__")
_made_of(functools.partial, "func", "args", "keywords")
_made_of(functools.partialmethod, "func", "args", "keywords")
_made_of(functools.cached_property, "func")
_made_of(type(functools.lru_cache(len)), "__wrapped__")
