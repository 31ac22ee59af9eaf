from __future__ import annotations

import threading

import pytest

from autotune.study.write_queue import WriteQueue


def test_calls_are_made_in_order_by_another_thread() -> None:
    queue, go = WriteQueue(), threading.Event()
    made: list[int] = []
    queue.call(go.wait)
    for number in range(5):
        queue.call(made.append, number)
    assert made == []
    go.set()
    queue.settle()
    assert made == [0, 1, 2, 3, 4]


def test_what_went_wrong_is_raised_once() -> None:
    queue = WriteQueue()
    queue.call([].pop)
    with pytest.raises(IndexError):
        queue.settle()
    queue.settle()


def test_what_is_dropped_is_not_made_up_for() -> None:
    queue, go = WriteQueue(), threading.Event()
    made: list[int] = []
    queue.call(go.wait)
    queue.call(made.append, 1)
    threading.Timer(0.1, go.set).start()
    queue.drop()
    queue.call(made.append, 2)
    queue.settle()
    assert made == [2]
