"""Options are declared once: what is said of one is what every reader says and takes.

Of all modules of :mod:`autotune.options`, with what Python may give (:mod:`autotune.options.given`).
"""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import run
from autotune.core.errors import InputError
from autotune.cost import parse_budget
from autotune.options import CompareOptions, JudgeOptions, SetupOptions, TuneOptions
from autotune.options.declare import OptionError, declared
from autotune.study.manifest import Manifest
from autotune.workflows.compare import compare
from autotune.workflows.setup import prepare
from autotune.workflows.tune import tune

ROOT = Path(__file__).parents[2]
READERS = [(tune, TuneOptions), (compare, CompareOptions)]


@pytest.mark.parametrize(("function", "declaration"), READERS)
def test_keywords_are_the_declared_options_with_their_defaults_and_help(function: Any, declaration: type[Any]) -> None:
    keywords = {each.name: each.default for each in inspect.signature(function).parameters.values()}
    assert {each.name: each.default for each in fields(declaration)}.items() <= keywords.items()
    said = inspect.getdoc(function)
    assert said is not None
    assert all(f"{each.name}: {each.option.help}" in said for each in declared(declaration))


@pytest.mark.parametrize("command", ["tune", "compare"])
def test_the_command_line_offers_them_all(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert run([command, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for each in declared(TuneOptions if command == "tune" else CompareOptions):
        if each.flag is not None:
            assert each.flag in words and each.option.help in words


def test_a_keyword_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'trails'"):
        tune(None, "40%", trails=3)  # type: ignore[call-arg]


def test_readers_spell_a_refusal_in_their_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="^call_batch of 0") as refused:
        raise OptionError("<call_batch> of 0")
    assert isinstance(refused.value, OptionError)
    assert str(refused.value.spelled({"call_batch": "--batch"})) == "--batch of 0"
    assert run(["tune", "--objective", "fidelity", "--weight-fd", "1"]) == 2
    assert capsys.readouterr().err.startswith("postdiff: --objective fidelity: has no weights; ")


@pytest.mark.parametrize("name", ["weight_clip", "weight_fd", "max_cache_memory", "prefix_memory"])
def test_an_option_is_in_few_lines(name: str) -> None:
    """Declared in one, used in the others; no other reader writes it down."""
    sources = [file for package in ("autotune", "search_spaces") for file in (ROOT / package).rglob("*.py")]
    lines = [line for file in sources for line in file.read_text("utf-8").splitlines() if name in line]
    assert 1 <= len(lines) <= 6, lines


def test_a_manifest_gives_back_what_the_search_was_prepared_from(tmp_path: Path) -> None:
    changed = SetupOptions(
        images=8, held_out_images=8, objective="fidelity", space={"interval": (2, 3)}, guidance_scale=3.0, seed=4
    )
    (setup,) = prepare(None, [parse_budget("40%")], changed)
    options = TuneOptions(**{each.name: getattr(changed, each.name) for each in fields(SetupOptions)}, trials=5)
    manifest = Manifest.of("run", None, setup, options)
    assert manifest.trials == 5
    assert replace(manifest.options(), space=changed.space) == changed
    assert manifest.arguments["space"] == {"interval": [2, 3]}
    assert set(manifest.arguments) == {each.name for each in fields(SetupOptions)}


def test_bad_choices_are_refused_when_they_are_made() -> None:
    assert JudgeOptions(weight_fd=0.0).weights == (0.0, None)
    wrongs: list[dict[str, Any]] = [
        {"weight_fd": -1.0},
        {"weight_fd": float("nan")},
        {"weight_fd": 0.0, "weight_clip": 0.0},
    ]
    for wrong in wrongs:
        with pytest.raises(InputError, match="must not be negative, nor both zero"):
            JudgeOptions(**wrong)
