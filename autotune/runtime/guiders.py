"""Guiders under a policy: objects of some pipelines that weigh guidance's branches and remember earlier steps."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from autotune.plan import Guided
from autotune.runtime.replacements import Replacements
from autotune.runtime.session import Session
from autotune.runtime.snapshot import canonical_form, restore_scheduler, scheduler_state

# What a guider carries from step to step.
_MEMORY = "momentum_buffer"


class Guiders:
    """Copies of a pipeline's guiders, which stand in for them while its call under a policy lasts.

    Other pipelines may share the guiders, and call them between two steps of this one.

    Args:
        pipe: the pipeline.
        names: of those of its components that are guiders.
        session: the call in progress.
    """

    def __init__(self, pipe: Any, names: Sequence[str], session: Session) -> None:
        self._pipe = pipe
        self._names = names
        self._session = session
        self._own: dict[str, Any] = {}
        self._copies: dict[str, Any] = {}
        self._replaced = Replacements()

    def begin(self) -> None:
        """Put the copies in place."""
        for name in self._names:
            own = getattr(self._pipe, name, None)
            if own is not None:
                self._own[name], self._copies[name] = own, copy.copy(own)
                self._replaced.add(self._copies[name], "forward", functools.partial(self._weigh, self._copies[name]))
                # Past __setattr__, which records components in the config.
                vars(self._pipe)[name] = self._copies[name]

    def end(self) -> None:
        """Put back what :meth:`begin` took, once or again."""
        self._replaced.undo()
        for name, own in self._own.items():
            if getattr(self._pipe, name) is self._copies[name]:
                vars(self._pipe)[name] = own
        self._own.clear()
        self._copies.clear()

    def state(self) -> dict[str, Any]:
        """A copy of what each carries from step to step, by name.

        Raises:
            NotPlainError: it cannot be copied.
        """
        memories = {name: getattr(guider, _MEMORY) for name, guider in self._copies.items()}
        return {name: scheduler_state(memory) for name, memory in memories.items() if memory is not None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        for name, memory in state.items():
            restore_scheduler(getattr(self._copies[name], _MEMORY), memory)

    def setting(self) -> str:
        """Text that differs where they weigh in another way; see :func:`autotune.runtime.prefix.sharing.setting_of`."""
        told = {name: {"enabled": guider._enabled, **_settings(guider)} for name, guider in self._copies.items()}
        return canonical_form(told, arrays=False)

    def _weigh(
        self, guider: Any, original: Callable[..., Any], pred_cond: Tensor, pred_uncond: Tensor | None = None
    ) -> Any:
        """Both branches weighed; where the policy has none but the conditional one, that, and nothing remembered.

        What stands in for the other branch then equals it, but the differences of earlier steps would still be added.
        These are forgotten, as all that is kept is, where the size changes.
        """
        step = self._session.step
        if pred_uncond is not None and step is not None and step.guidance is Guided.CONDITIONAL:
            from diffusers.guiders.guider_utils import GuiderOutput

            return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=pred_uncond)
        average = getattr(getattr(guider, _MEMORY), "running_average", None)
        if isinstance(average, Tensor) and average.shape != pred_cond.shape:
            # As at the beginning of a call.
            getattr(guider, _MEMORY).running_average = 0
        return original(pred_cond, pred_uncond)


def _settings(guider: Any) -> dict[str, Any]:
    """Attributes that users set."""
    plain = (bool, int, float, str, type(None))
    return {
        name: value for name, value in vars(guider).items() if not name.startswith("_") and isinstance(value, plain)
    }
