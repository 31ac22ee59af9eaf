"""Hooks on the denoiser, its units and its blocks. They do what the session tells them; they decide nothing.

A hook's state is a handful of plain attributes that the session sets before each call, so that
``torch.compile`` traces one graph per combination of actions and not one per step. Modules that are
compiled on their own (the denoiser, or its blocks by ``compile_repeated_blocks``) are taken hold of
outside of their compiled code, which then is the plain model's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from autotune.core.errors import InputError
from autotune.plan import Action
from autotune.plan.structure import Unit
from autotune.runtime.snapshot import cloned

_NAME = "postdiff"
# What a module's call runs in place of its forward and the hooks around that: nn.Module.compile puts it there.
_CALL = "_compiled_call_impl"
COMPUTE, RESIDUAL, NOT_NEEDED = int(Action.COMPUTE), int(Action.RESIDUAL), int(Action.NOT_NEEDED)


class UnitHook(ModelHook):  # type: ignore[misc]
    """Compute one unit, or put out what is given in its place.

    Attributes:
        action: an :class:`~autotune.plan.Action` as a plain int.
        keep: whether the session wants this call's result, left in ``computed``.
        given, weights: earlier results and their weights, whose weighted sum is the output; without weights the one
            result is.
        first: where the residual is kept or added, the hook of the first block of its range, which notes the range's
            input in ``entry``; else None.
        notes_entry: whether it is read in this call.
        shape: sizes of the last computed output's tensors, unless ``passes``: the unit can stand aside without them.

    What is kept, noted or put out in a unit's place is a copy that nobody else holds: the denoiser may write into what
    its units put out (FreeU does), and compiled code with CUDA graphs writes over its results in its next run.
    """

    def __init__(self, unit: Unit, module: nn.Module) -> None:
        super().__init__()
        self.place = Place(self)
        self.name = unit.name
        self.passes = unit.kind == "block" and bool(unit.streams)
        self._unit = unit
        self.read_signature(module)
        self.shape: Any = None
        self.rest()

    def read_signature(self, module: nn.Module) -> None:
        """Find the residual streams among the arguments of the module's forward.

        Raises:
            InputError: it takes none by that name.
        """
        names = list(inspect.signature(module.forward).parameters)
        lost = next((name for name in self._unit.streams if name not in names), None)
        if lost is not None:
            raise InputError(
                f"{self.name} is a {type(module).__name__} now, whose forward takes no {lost!r}: call"
                " remove_policy(pipe), then apply the policy to what the pipeline has become"
            )
        self.streams = tuple((name, names.index(name)) for name in self._unit.streams)

    def rest(self) -> None:
        """Compute as if there were no hook, and hold nothing."""
        self.action = COMPUTE
        self.keep = False
        self.given: tuple[Any, ...] = ()
        self.weights: tuple[Tensor, ...] = ()
        self.computed: Any = None
        self.first: UnitHook | None = None
        self.notes_entry = False
        self.entry: tuple[Any, ...] = ()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.act(self.fn_ref.original_forward, args, kwargs)

    def act(self, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.notes_entry:
            self.entry = cloned(self._streams(args, kwargs))
        if self.action == COMPUTE:
            output = compute(*args, **kwargs)
            if self.keep:
                self.computed = cloned(output) if self.first is None else residual_of(output, self.first.entry)
            if not self.passes:
                self.shape = tree_map_only(Tensor, lambda t: (tuple(t.shape), t.dtype, t.device), output)
            return output
        if self.action == RESIDUAL:
            assert self.first is not None
            residual = _weighted_sum(self.given, self.weights) if self.weights else self.given[0]
            return _plus(residual, self.first.entry)
        if self.action == NOT_NEEDED and self.passes:
            # Residual streams go by; nobody reads what this block would have added.
            streams = self._streams(args, kwargs)
            return streams[0] if len(streams) == 1 else streams
        return self.put_out()

    def put_out(self) -> Any:
        """What is given in the unit's place."""
        return _weighted_sum(self.given, self.weights) if self.weights else cloned(self.given[0])

    def _streams(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(kwargs[name] if name in kwargs else args[position] for name, position in self.streams)


class BlockHook(ModelHook):  # type: ignore[misc]
    """Step over a whole U-Net block when none of its units computes, sparing the glue between them.

    One that is given something to add to its features inside (``additional_residuals`` of T2I-Adapters) is not stepped
    over: there its units stand aside one by one.
    """

    def __init__(self, units: Sequence[int], last: UnitHook, outputs: Sequence[UnitHook] | None) -> None:
        super().__init__()
        self.place = Place(self)
        self.units = tuple(units)
        self.last = last
        self.outputs = None if outputs is None else tuple(outputs)
        self.skip = False

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.act(self.fn_ref.original_forward, args, kwargs)

    def act(self, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.skip or kwargs.get("additional_residuals") is not None:
            return compute(*args, **kwargs)
        last = _tensor_given(self.last)
        if self.outputs is None:
            return last
        # Going on and going to the skips is one tensor: what later code adds to either in place, it adds to both.
        return last, tuple(last if hook is self.last else _tensor_given(hook) for hook in self.outputs)


class CallHook:
    """Hand a module's calls to ``act(call, args, kwargs)``, outside of whatever wraps or compiles its forward."""

    def __init__(self, act: Callable[..., Any]) -> None:
        self._act = act
        self._module: nn.Module | None = None
        self.inner: Callable[..., Any] | None = None

    def attach(self, module: nn.Module) -> None:
        """Take hold of ``module``, again where it has been compiled since, and of nothing else."""
        if module is self._module and self.attached():
            return
        self.detach()
        self._module, self.inner = module, vars(module).get(_CALL)
        vars(module)[_CALL] = self._call

    def attached(self) -> bool:
        """Whether calls of the module still come here."""
        # Not by getattr: what torch.compile returns hands attributes on to the module inside.
        return self._module is not None and vars(self._module).get(_CALL) == self._call

    def detach(self) -> None:
        if self._module is None:
            return
        own = vars(self._module)
        # Where the module has been compiled since, the hook is gone already.
        if own.get(_CALL) == self._call:
            if self.inner is None:
                del own[_CALL]
            else:
                own[_CALL] = self.inner
        self._module = self.inner = None

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        assert self._module is not None
        inner: Any = self._module._call_impl if self.inner is None else self.inner
        return self._act(inner, args, kwargs)


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of ``module`` enter compiled code of its own, with or without a hook before it."""
    call = vars(module).get(_CALL)
    hook = getattr(call, "__self__", None)
    return hasattr(module, "_orig_mod") or (hook.inner if isinstance(hook, CallHook) else call) is not None


class Place:
    """Where a hook is: on a module's forward, among the hooks of other libraries, or on its calls."""

    def __init__(self, hook: UnitHook | BlockHook) -> None:
        self._hook = hook
        self._on_call = CallHook(hook.act)
        self._module: Any = None
        self._wrapper: Any = None
        # Of the module when the hook was put on it: patches give modules other classes (ToMe).
        self._class: Any = None

    def move(self, module: nn.Module, *, outside: bool) -> None:
        """Put the hook on ``module``; again, if another library has taken it off with a hook of its own.

        Args:
            outside: before compiled code of the module's own, which then is the plain model's.
        """
        if outside:
            self._leave_forward()
            self._on_call.attach(module)
            return
        self._on_call.detach()
        if self._module is module and self._holds():
            return
        self._leave_forward()
        if isinstance(self._hook, UnitHook):
            self._hook.read_signature(module)
        self._class = type(module)
        HookRegistry.check_if_exists_or_initialize(module).register_hook(self._hook, _NAME)
        self._module, self._wrapper = module, module.forward

    def kept(self) -> bool:
        """Whether the hook is still where :meth:`move` put it."""
        return self._on_call.attached() if self._module is None else self._holds()

    def leave(self) -> None:
        """Take the hook off, and nobody else's with it."""
        self._on_call.detach()
        self._leave_forward()

    def _leave_forward(self) -> None:
        module, reference = self._module, self._hook.fn_ref
        if module is None:
            return
        own, registry = vars(module), module._diffusers_hook
        top, last = own.get("forward"), registry._hook_order[-1] == _NAME
        if not self._acts():
            reference.original_forward = reference.forward
        registry.remove_hook(_NAME, recurse=False)
        if last and top is not self._wrapper:
            # Another library put its own around the hook, or took the hook away; diffusers has overwritten that.
            inner = own.pop("forward")
            if top is not None:
                own["forward"] = top
            if own.get("_old_forward") is self._wrapper:  # accelerate
                own["_old_forward"] = inner
        if not registry.hooks:
            del module._diffusers_hook
        if getattr(own.get("forward"), "__func__", None) is self._class.forward:
            del own["forward"]
        self._module = self._wrapper = None

    def _holds(self) -> bool:
        """Whether the module's forward still passes through the hook, with or without other hooks around it."""
        own = vars(self._module)
        around = own["_diffusers_hook"]._hook_order[-1] != _NAME
        current = type(self._module).forward is self._class.forward
        return current and self._acts() and (around or self._wrapper in (own.get("forward"), own.get("_old_forward")))

    def _acts(self) -> bool:
        """Whether diffusers still calls the hook: removing one that was there before it, it passes this one over."""
        return bool(getattr(self._hook.fn_ref.forward, "func", None) == self._hook.new_forward)


def _tensor_given(hook: UnitHook) -> Tensor:
    """What a hook is given to put out; attention layers return a tuple, of which blocks pass on the first entry."""
    output = hook.put_out()
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _weighted_sum(outputs: Sequence[Any], weights: Sequence[Tensor]) -> Any:
    def combine(*tensors: Any) -> Any:
        if tensors[0] is None:  # a last block hands no text on
            return None
        total = tensors[0] * weights[0]
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            total = total + tensor * weight
        return total

    return tree_map(combine, *outputs)


def residual_of(output: Any, entry: tuple[Any, ...]) -> Any:
    if isinstance(output, Tensor):
        return output - entry[0]
    return tuple(None if out is None else out - into for out, into in zip(output, entry, strict=True))


def _plus(residual: Any, entry: tuple[Any, ...]) -> Any:
    if isinstance(residual, Tensor):
        return residual + entry[0]
    return tuple(None if part is None else part + into for part, into in zip(residual, entry, strict=True))
