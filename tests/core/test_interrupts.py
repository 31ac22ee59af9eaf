"""Ctrl-C waits for a safe point, and a second one does not."""

from __future__ import annotations

import signal

import pytest

from autotune.core.interrupts import checkpoint, deferred


@pytest.fixture(autouse=True)
def usual_handler() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_first_waits_for_a_checkpoint() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), deferred():
        checkpoint()
        signal.raise_signal(signal.SIGINT)
        reached = True
        checkpoint()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_does_not_wait() -> None:
    with deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nothing_is_left_over_for_the_next_search() -> None:
    with deferred():
        signal.raise_signal(signal.SIGINT)
    with deferred():
        checkpoint()
