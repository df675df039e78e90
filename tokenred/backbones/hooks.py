"""Modules that the block loop opens: wrappers, differences from their class, and hooks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import BackwardHook

from tokenred.core.errors import BackboneError

_METHODS = ("forward", "_forward", "__call__")


def known_base(kind: type, known: Any) -> Any:
    """The first of a class and its bases that is in ``known``, or None."""
    return next((base for base in kind.__mro__ if base in known), None)


def difference(module: nn.Module, known: type) -> str:
    """How calling a module differs from calling one of a known class; empty if it does not."""
    kind = type(module)
    for name in _METHODS:
        if name in vars(module):
            return f"its {name} was set on the instance"
        if getattr(kind, name, None) is not getattr(known, name, None):
            return f"{kind.__name__}.{name} is not {known.__name__}'s"
    written = known.forward  # type: ignore[attr-defined]
    if written.__module__ != known.__module__:
        return f"{known.__name__}.forward was replaced by one of {written.__module__}"
    if module._compiled_call_impl is not None:
        return "it was compiled by itself (compile the reduced model instead)"
    return ""


def unwrapped(block: nn.Module) -> tuple[nn.Module, str, bool]:
    """A block without its wrappers, why it must stay closed, and whether a wrapper checkpoints."""
    closed, checkpointed = "", False
    while True:
        held: dict[str, Any] = dict(block.named_children())
        if isinstance(held.get("_checkpoint_wrapped_module"), nn.Module):
            checkpointed, block = True, held["_checkpoint_wrapped_module"]
        elif isinstance(held.get("_orig_mod"), nn.Module):
            closed = "it was compiled by itself (compile the reduced model instead)"
            block = held["_orig_mod"]
        else:
            return block, closed, checkpointed


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on this module itself."""
    # Called for every block in every forward, so no loop.
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def call_of(module: nn.Module) -> Call | None:
    """The hooks around a call of a module, global ones included; None if there are none."""
    everywhere = (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )
    return Call(module) if everywhere or has_hooks(module) else None


class Call:
    """The hooks around one call of a module, run as ``__call__`` would, around another forward.

    Forward and backward hooks run, global ones included. ``always_call``, which matters only after
    an exception, is ignored.

    Args:
        module: the module.
        inside: the module is part of the model: as many tokens out as in. Otherwise it is the
            model itself, whose own hooks may do anything; the global ones have run already.
    """

    def __init__(self, module: nn.Module, inside: bool = True) -> None:
        self._module: Any = module
        self._inside = inside
        self._args: tuple[Any, ...] = ()
        self._backward: BackwardHook | None = None
        self._old_style: Any = ()

    def enter(self, x: Tensor) -> Any:
        """The module's input after its forward pre-hooks, which must keep the shape."""
        module, args = self._module, (x,)
        kwargs: dict[str, Any] = {}
        everywhere = torch_module._global_forward_pre_hooks if self._inside else {}
        for key, hook in (*everywhere.items(), *module._forward_pre_hooks.items()):
            if key in module._forward_pre_hooks_with_kwargs:
                given = hook(module, args, kwargs)
                args, kwargs = (args, kwargs) if given is None else given
            elif (given := hook(module, args)) is not None:
                args = given if isinstance(given, tuple) else (given,)
        if len(args) != 1 or kwargs:
            self._refuse("input", (*args, *kwargs), x)
        self._check("input", args[0], x)
        before = module._get_backward_pre_hooks()
        full, self._old_style = module._get_backward_hooks()
        if full or before:
            self._backward = BackwardHook(module, full, before)
            args = self._backward.setup_input_hook(args)
        self._args = args
        return args[0]

    def leave(self, result: Any) -> Any:
        """The module's output after its forward hooks, which must keep the shape."""
        module, given = self._module, result
        everywhere = torch_module._global_forward_hooks if self._inside else {}
        with_kwargs = (
            *torch_module._global_forward_hooks_with_kwargs,
            *module._forward_hooks_with_kwargs,
        )
        for key, hook in (*everywhere.items(), *module._forward_hooks.items()):
            extra: tuple[Any, ...] = ({},) if key in with_kwargs else ()
            other = hook(module, self._args, *extra, given)
            given = given if other is None else other
        self._check("output", given, result)
        if self._backward is not None:
            given = self._backward.setup_output_hook(given)
        for hook in self._old_style if getattr(given, "grad_fn", None) is not None else ():
            given.grad_fn.register_hook(torch_module._WrappedHook(hook, module))
        return given

    def _check(self, what: str, given: Any, expected: Any) -> None:
        if self._inside and (not isinstance(given, Tensor) or given.shape != expected.shape):
            self._refuse(what, given, expected)

    def _refuse(self, what: str, given: Any, expected: Tensor) -> None:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise BackboneError(
            f"a hook on {type(self._module).__name__} changed its {what} to {shape}; expected one "
            f"tensor of shape {tuple(expected.shape)}. Only strategies may remove tokens."
        )
