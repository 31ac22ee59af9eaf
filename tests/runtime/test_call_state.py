"""The state of a call: complete when the denoiser is called, new afterwards, however the call ended.

Of :mod:`autotune.runtime.call`, and of :mod:`autotune.runtime.session` and :mod:`autotune.runtime.denoising`, which
keep it; what comes of it is seen in :mod:`tests.runtime.test_calls`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from autotune.runtime import apply_policy
from autotune.runtime.apply import session_of
from autotune.runtime.call import CallState, Prepared, SinceStep
from autotune.runtime.session import Session
from tests.runtime.test_calls import Fault, called_back
from tests.support.ecosystem import NAMES, denoiser_of, make, policy_of, run

each_pipeline = pytest.mark.parametrize("name", NAMES)


def ready(name: str) -> tuple[Any, Session]:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    session = session_of(pipe)
    assert session is not None
    return pipe, session


def changed(state: Any) -> set[str]:
    """Names of what a state holds beyond what one holds that was just made."""
    new = type(state)()
    found: set[str] = set()
    for field in fields(state):
        value, initial = getattr(state, field.name), getattr(new, field.name)
        if isinstance(value, Prepared | SinceStep):
            found |= changed(value)
        elif value is not initial and value != initial:
            found.add(field.name)
    return found


def resting(session: Session) -> bool:
    hooks = session.hooks
    units = all(hook.action == 0 and not hook.keep and hook.shape is None for hook in hooks.units.values())
    return units and not any(block.skip for block in hooks.blocks)


def noted(name: str, pipe: Any, session: Session) -> list[CallState]:
    """The states that there are before calls of the denoiser from now on."""
    states: list[CallState] = []
    denoiser_of(name, pipe).register_forward_pre_hook(lambda *_: states.append(session.call))
    return states


@each_pipeline
def test_one_state_serves_all_of_a_call_and_nothing_of_it_stays(name: str) -> None:
    pipe, session = ready(name)
    states = noted(name, pipe, session)
    run(name, pipe)
    assert len(set(map(id, states))) == 1
    assert {"calls", "plan", "full", "position"} <= changed(states[0])
    assert changed(session.call) == set() and resting(session)


@each_pipeline
def test_two_calls_have_nothing_in_common(name: str) -> None:
    pipe, session = ready(name)
    states = noted(name, pipe, session)
    run(name, pipe)
    one = states[0]
    run(name, pipe, batch=2)
    other = states[-1]
    assert one is not other and one.prepared is not other.prepared and one.kept is not other.kept


@each_pipeline
def test_a_denoiser_that_raises_leaves_nothing(name: str) -> None:
    pipe, session = ready(name)
    states = noted(name, pipe, session)

    def fail(*_: Any) -> None:
        if len(states) == 3:
            raise Fault

    handle = denoiser_of(name, pipe).register_forward_hook(fail)
    with pytest.raises(Fault):
        run(name, pipe)
    handle.remove()
    assert changed(session.call) == set() and resting(session)


@each_pipeline
def test_after_a_call_that_was_broken_off_between_steps_the_next_one_begins_with_a_new_state(name: str) -> None:
    pipe, session = ready(name)

    def fail(index: int, latents: Any) -> None:
        if index == 2:
            raise Fault

    with pytest.raises(Fault):
        run(name, pipe, batch=2, **called_back(pipe, fail))
    assert changed(session.call) == set() and resting(session)

    first: list[tuple[int, int, bool]] = []

    def look(*_: Any) -> None:
        call = session.call
        assert call.plan is not None and call.full is not None
        first.append((call.position, len(call.kept), call.low is None))

    denoiser_of(name, pipe).register_forward_pre_hook(look)
    run(name, pipe)
    assert first[0] == (0, 0, False), "at its first call, and at low resolution again"
    assert changed(session.call) == set() and resting(session)
