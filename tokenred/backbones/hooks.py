"""Modules that the block loop opens: their wrappers, how they differ from their class, hooks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import BackwardHook

from tokenred.core.errors import BackboneError

_METHODS = ("forward", "_forward", "__call__")


def known_base(kind: type, known: Any) -> Any:
    """The nearest class of ``known`` that a class is or inherits from, or None."""
    return next((base for base in kind.__mro__ if base in known), None)


def difference(module: nn.Module, known: type) -> str:
    """How calling a module differs from calling one of a known class; empty where it does not."""
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
    """A block without its wrappers; why they keep it closed; whether one of them checkpoints."""
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
    """Whether anybody listens to this module in particular."""
    # Asked of every block in every forward, so no loop.
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def call_of(module: nn.Module) -> Call | None:
    """The hooks around a call of a module, those of all modules included; None without any."""
    everywhere = (
        torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )
    return Call(module) if everywhere or has_hooks(module) else None


def entered(module: nn.Module, x: Tensor, listens: bool) -> tuple[Tensor, tuple[Call, ...]]:
    """What a module is to read, and its call if somebody listens to it."""
    call = call_of(module) if listens else None
    return (x, ()) if call is None else (call.enter(x), (call,))


class Call:
    """One call of a module whose forward somebody else runs: its hooks, as ``__call__`` runs them.

    Forward and backward hooks, those of all modules included. ``always_call`` matters after an
    exception only, and is not followed there.

    Args:
        module: the module.
        inside: it is a part of what runs: tokens in, as many tokens out. Otherwise it is the model
            itself, whose hooks may do anything, and those of all modules have seen the call.
    """

    def __init__(self, module: nn.Module, inside: bool = True) -> None:
        self._module: Any = module
        self._inside = inside
        self._args: tuple[Any, ...] = ()
        self._backward: BackwardHook | None = None
        self._old_style: Any = ()

    def enter(self, x: Tensor) -> Any:
        """What the module is to read, after the hooks before its forward: of the same shape."""
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
        """What the module is to give, after the hooks behind its forward: of the same shape."""
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
            f"tensor of shape {tuple(expected.shape)}. Tokens are removed by strategies only."
        )
