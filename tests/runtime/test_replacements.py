"""Replaced methods come back as they were."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from autotune.runtime.replacements import Replacements


class Greeter:
    def greet(self, name: str, **extra: Any) -> str:
        return f"hello {name}"


def louder(original: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    return original(*args, **kwargs).upper()


def test_a_method_is_replaced_on_one_instance_only() -> None:
    one, other = Greeter(), Greeter()
    replaced = Replacements()
    replaced.add(one, "greet", louder)
    assert one.greet("you") == "HELLO YOU" and other.greet("you") == "hello you"
    replaced.undo()
    assert one.greet("you") == "hello you" and vars(one) == {}


def test_what_another_tool_had_put_there_comes_back() -> None:
    one = Greeter()

    def theirs(name: str) -> str:
        return f"bonjour {name}"

    one.greet = theirs  # type: ignore[method-assign, assignment]
    replaced = Replacements()
    replaced.add(one, "greet", louder)
    replaced.add(one, "greet", lambda original, name: f"{original(name)}!")
    assert one.greet("you") == "BONJOUR YOU!"
    replaced.undo()
    assert vars(one) == {"greet": theirs}


def test_undoing_twice_undoes_nothing_more() -> None:
    one = Greeter()
    replaced = Replacements()
    replaced.add(one, "greet", louder)
    replaced.undo()
    one.greet = louder  # type: ignore[method-assign, assignment]
    replaced.undo()
    assert vars(one) == {"greet": louder}


def test_callers_that_ask_for_the_signature_see_arguments_by_name() -> None:
    one = Greeter()
    Replacements().add(one, "greet", louder, accepts=("name", "tone"))
    parameters = inspect.signature(one.greet).parameters
    assert list(parameters) == ["name", "tone"] and parameters["tone"].default is None
