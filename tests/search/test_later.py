from __future__ import annotations

import threading

import pytest

from autotune.search.later import Later


def test_calls_are_made_in_order_by_another_thread() -> None:
    later, go = Later(), threading.Event()
    made: list[int] = []
    later.call(go.wait)
    for number in range(5):
        later.call(made.append, number)
    assert made == []
    go.set()
    later.settle()
    assert made == [0, 1, 2, 3, 4]


def test_what_went_wrong_is_raised_once() -> None:
    later = Later()
    later.call([].pop)
    with pytest.raises(IndexError):
        later.settle()
    later.settle()


def test_what_is_dropped_is_not_made_up_for() -> None:
    later, go = Later(), threading.Event()
    made: list[int] = []
    later.call(go.wait)
    later.call(made.append, 1)
    threading.Timer(0.1, go.set).start()
    later.drop()
    later.call(made.append, 2)
    later.settle()
    assert made == [2]
