"""A search by a panel of judges: exact runs, errors, the ceiling, and what is resumed or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from optuna.trial import TrialState

from autotune.cli.dry_run import _sentences
from autotune.core.errors import InputError
from autotune.cost import parse_budget
from autotune.options import TuneOptions
from autotune.policy import Policy, read_policy
from autotune.quality.panel import DEFAULT_PANEL, DISTANCE_TEXTURES, JUDGES, Judge
from autotune.report.page import render
from autotune.report.run import read_run
from autotune.study.manifest import Manifest
from autotune.study.trials import attributes, evaluated, ranked
from autotune.workflows.forecast import Pace, forecast
from autotune.workflows.setup import prepare
from autotune.workflows.tune import TuneResult, tune
from tests.support.fake_search import PROMPTS, FakePictures

PANEL = {"judges": ["distance:1", "alignment:4", "error:2"], "error_pictures": 8}


def fading(policy: Policy) -> float:
    """Guidance fades nothing; every step that is saved, and every reuse, does."""
    return 0.5 / policy.steps + 0.2 * bool(policy.cache) + 0.3 * bool(policy.resolution)


def prepared(arguments: dict[str, Any]) -> Any:
    kept = {
        name: value for name, value in arguments.items() if name not in ("trials", "run_dir", "study_name", "quiet")
    }
    (setup,) = prepare(None, [parse_budget("40%")], TuneOptions(**kept))
    return setup


def test_errors_are_in_all_that_a_run_leaves(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    pictures.degradation = fading
    result = tune(pipe, "40%", **arguments | PANEL)

    policy = read_policy(result.run_dir / "policy.json")
    assert policy.quality is not None and policy.version == 2
    assert policy.quality.weights == {"distance": 1, "alignment": 4, "error": 2}
    assert policy.quality.full.error is not None and policy.quality.full.error.value == 0
    errors = [each.quality.error for each in result.finalists.candidates]
    assert all(error is not None and error.low <= error.value <= error.high for error in errors)
    document = json.loads((result.run_dir / "finalists.json").read_text())
    assert all("error" in each["quality"] for each in document["contenders"])
    for trial in evaluated(result.study):
        given = attributes(trial)
        assert given["error"] > 0 and set(given["terms"]) == {"distance", "alignment", "error"}
        assert sum(weight * given["terms"][name] for name, weight in policy.quality.weights.items()) == pytest.approx(
            given["loss"]
        )

    # As many exact runs as intents, each of them counted where it was made.
    exact = sum(attributes(trial)["exact_flops"] for trial in evaluated(result.study))
    assert exact == result.spending.exact > 0
    made = list((result.run_dir / "outcomes").glob("*/tuning/exact/*.safetensors"))
    assert 2 <= len(made) <= len(evaluated(result.study)) + len(result.finalists.candidates)
    run = read_run(result.run_dir)
    assert run.search_record is not None and run.search_record.exact_share == pytest.approx(
        result.spending.exact_share, abs=1e-4
    )
    page = render(run)
    assert '<th scope="col">error</th>' in page and "share of exact runs" in page
    assert "distance:1, alignment:4, error:2" in page

    before = len(pictures.made)
    again = tune(pipe, "40%", **arguments | PANEL)
    assert again.policy.key == result.policy.key
    assert len(set(pictures.made[before:])) <= 3, "only what is timed is made again"


def test_errors_decide_where_the_other_judges_see_nothing(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    """By distance and alignment all are the same; reuse alone differs from the exact run."""
    pictures.degradation = lambda policy: 0.01 + 0.02 * bool(policy.cache or policy.resolution)
    result = tune(pipe, "40%", **arguments | {"judges": ["error", "distance:0.001"], "error_pictures": 12})
    best = ranked(result.study)[0]
    policy = Policy.model_validate_json(json.dumps(attributes(best)["policy"]))
    assert not policy.cache and not policy.resolution


def test_what_is_above_the_ceiling_is_never_the_best(
    pipe: Any, batched: FakePictures, arguments: dict[str, Any]
) -> None:
    """And no more of its pictures are made than its error takes."""
    batched.degradation = fading
    arguments |= PANEL | {"images": 64, "prompts": [f"{n} {p}" for n in range(12) for p in PROMPTS], "trials": 9}
    free = tune(pipe, "40%", **arguments | {"run_dir": arguments["run_dir"] / "free", "early_stopping": False})
    errors = sorted(attributes(trial)["error"] for trial in evaluated(free.study))
    ceiling = (errors[len(errors) // 2 - 1] + errors[len(errors) // 2]) / 2

    result = tune(pipe, "40%", **arguments | {"error_ceiling": ceiling})
    trials = evaluated(result.study)
    infeasible = [trial for trial in trials if any(value > 0 for value in trial.constraints.values())]
    assert infeasible and all(attributes(trial)["error"] > ceiling for trial in infeasible)
    assert {(trial.state, attributes(trial)["pictures"]) for trial in infeasible} == {(TrialState.PRUNED, 8)}
    assert all(not trial.intermediate_values for trial in infeasible)
    feasible = [trial for trial in trials if trial not in infeasible]
    assert feasible and all(trial.constraints for trial in feasible)
    assert all(attributes(trial)["error"] <= ceiling for trial in ranked(result.study))
    assert not {run.trial for run in result.finalists.candidates} & {trial.number for trial in infeasible}

    # Samplers that learn nothing from those given up get all pictures, and are told all the same.
    whole = tune(
        pipe, "40%",
        **arguments | {"error_ceiling": ceiling, "early_stopping": False, "run_dir": arguments["run_dir"] / "whole"},
    )  # fmt: skip
    infeasible = [trial for trial in evaluated(whole.study) if any(value > 0 for value in trial.constraints.values())]
    assert infeasible and {trial.state for trial in infeasible} == {TrialState.COMPLETE}
    assert not {trial.number for trial in ranked(whole.study)} & {trial.number for trial in infeasible}
    assert read_run(whole.run_dir).best is not None
    assert attributes(ranked(whole.study)[0])["error"] <= ceiling


def test_where_nothing_is_feasible_fewer_steps_are_exported(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    result = tune(pipe, "40%", **arguments | PANEL | {"error_ceiling": 1e-9})
    assert result.finalists.candidates == () and not result.finalists.better
    assert result.policy.key == result.baseline.key


def test_a_study_of_the_former_judges_is_resumed_by_them_alone(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], whole: TuneResult
) -> None:
    # There are no real pictures to compare textures with.
    now = " ".join(
        f"--judge {name}:{weight:g}"
        for name, weight in DEFAULT_PANEL.items()
        if not JUDGES[name].above_side and name != DISTANCE_TEXTURES
    )
    with pytest.raises(
        InputError, match=f"its judges were --judge distance:1 --judge alignment:4, now they are {now};"
    ):
        tune(pipe, "40%", **continued | {"judges": None})
    with pytest.raises(InputError, match="--error-ceiling 0.5"):
        tune(pipe, "40%", **continued | {"error_ceiling": 0.5})
    for former in ({"judges": ["distance:1", "alignment:4"]}, {"judges": None, "weight_fd": 1.0}):
        assert tune(pipe, "40%", **continued | former).policy.key == whole.policy.key


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"judges": ["distence"]}, "no judge called 'distence'; did you mean 'distance'"),
        ({"judges": ["error"], "weight_fd": 1.0}, "judges names all judges with their weights; leave objective"),
        ({"judges": ["error"], "objective": "fidelity"}, "judges names all judges with their weights"),
        ({"error_ceiling": -1.0}, "error_ceiling is -1"),
        ({"error_pictures": 0}, "error_pictures is 0"),
        ({"judges": ["distance", "distance-crops"]}, "no larger than what the network sees"),
        ({"judges": ["distance", "broken"]}, "judge broken gives values that are not finite"),
        ({"judges": ["distance", "absent"]}, "the weights of absent cannot be had"),
    ],
)
def test_bad_panels_are_refused_before_a_picture_is_made(
    pipe: Any,
    pictures: FakePictures,
    arguments: dict[str, Any],
    changes: dict[str, Any],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(sources: object) -> Any:
        raise InputError("the weights of absent cannot be had; put them into FOLDER")

    def broken(sources: object) -> Any:
        return lambda a, b: (a - b).float().mean((1, 2, 3)) * float("nan")

    monkeypatch.setitem(JUDGES, "absent", Judge("paired", absent, "absent"))
    monkeypatch.setitem(JUDGES, "broken", Judge("paired", broken, "broken"))
    with pytest.raises(InputError, match=sentence) as refused:
        tune(pipe, "40%", **arguments | changes)
    assert "\n" not in str(refused.value)
    assert pictures.made == [] and not arguments["run_dir"].exists()


def test_workers_get_the_same_panel(pipe: Any, arguments: dict[str, Any]) -> None:
    given = {"judges": {"distance": 1, "error": 0.5}, "error_ceiling": 0.4, "images": 8, "held_out_images": 8}
    options = TuneOptions(**given)  # type: ignore[arg-type]
    (setup,) = prepare(None, [parse_budget("40%")], options)
    found = Manifest.of("run", None, setup, options).options()
    assert found.judges == ["distance:1", "error:0.5"] and found.error_ceiling == 0.4
    (joined,) = prepare(None, [parse_budget("40%")], found)
    assert joined.configuration == setup.configuration


def test_exact_runs_are_foreseen(pipe: Any, arguments: dict[str, Any]) -> None:
    kept = {name: arguments[name] for name in ("prompts", "held_out", "scorer", "steps", "held_out_images", "images")}
    (setup,) = prepare(pipe, [parse_budget("40%")], TuneOptions(**kept, **PANEL))  # type: ignore[arg-type]
    pace = Pace(4, 10, 0.5)
    found = forecast(setup, pace, trials=1000, timeout=1e6)
    assert (found.intents, found.exact_pictures) == (500, 8)
    held_out = len(setup.held_out.rows)
    assert held_out > 8, "the last round compares more pictures than the search"
    # Half of an exact run's steps are guided.
    assert found.exact_seconds == pytest.approx(0.5 * 0.75 * (8 * found.intents + 3 * held_out))
    assert 0 < found.exact_share < 1
    (sentence,) = (line for line in _sentences(setup, [found], pace, [1e6]) if "exact" in line)
    assert f"for exact runs with their guidance, {found.intents} of at most 8 pictures" in sentence
    (classic,) = prepare(pipe, [parse_budget("40%")], TuneOptions(**kept, judges=["distance"]))
    assert forecast(classic, pace, trials=1000, timeout=1e6).exact_seconds == 0


def test_exact_runs_of_candidates_pruned_early_are_foreseen_to_be_short(pipe: Any, arguments: dict[str, Any]) -> None:
    kept = {name: arguments[name] for name in ("prompts", "held_out", "scorer", "steps", "held_out_images")}
    given = {**kept, **PANEL, "images": 48, "error_pictures": 16}
    found = {}
    for early_stopping in (True, False):
        (setup,) = prepare(pipe, [parse_budget("40%")], TuneOptions(**given, early_stopping=early_stopping))
        found[early_stopping] = forecast(setup, Pace(4, 10, 0.5), trials=100, timeout=1e6)
        assert found[early_stopping].exact_pictures == 16
    assert found[True].exact_seconds < found[False].exact_seconds


def test_a_study_notes_how_many_pairs_its_looks_have(pipe: Any, arguments: dict[str, Any]) -> None:
    kept = {name: arguments[name] for name in ("prompts", "held_out", "scorer", "steps", "held_out_images")}

    def noted(**given: Any) -> str | None:
        (setup,) = prepare(pipe, [parse_budget("40%")], TuneOptions(**{**kept, **PANEL, **given}))
        return setup.configuration.exact

    assert noted(images=16, error_pictures=12) == "12 pictures, guidance switched midway, error by regression"
    said = "16 pictures, 8 up to the look at 32, guidance switched midway, error by regression"
    assert noted(images=48, error_pictures=16) == said
