"""Searches from a pipeline to an exported policy, and :mod:`autotune.workflows.explore` in each of them."""

from __future__ import annotations

import copy
import errno
import json
import os
import sqlite3
import threading
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import TrialState
from optuna_dashboard._note import get_note_from_system_attrs

from autotune.core.errors import InputError, Unavailable
from autotune.core.interrupts import Interrupted
from autotune.cost import Pricer, Profile, parse_budget
from autotune.options import TuneOptions
from autotune.policy import Policy, read_policy
from autotune.runtime import full_policy
from autotune.search.proposer import Proposer
from autotune.study.trials import COMBINES, RECIPE, attributes, evaluated, finished, policy_of, sqlite_url
from autotune.workflows.setup import Setup
from autotune.workflows.tune import TuneResult, tune, tune_budgets
from search_spaces import space_for
from tests.support.fake_search import (
    HELD_OUT,
    PROMPTS,
    TRIALS,
    FakePictures,
    ReadingScorer,
    degradation_of_anything_else,
)
from tests.support.profiles import synthetic_profile

LIMIT = 0.4
# Calls that make pictures: four for the reference, one for the full run; then the recipes, of which this is a late one.
BEFORE_THE_SEARCH, LATE = 5, 16


def states(study: optuna.Study) -> set[TrialState]:
    return {trial.state for trial in study.trials}


def keys(study: optuna.Study) -> list[str]:
    return [attributes(trial)["policy_key"] for trial in evaluated(study)]


def test_a_search_exports_the_best_policy_within_the_budget(pipe: Any, whole: TuneResult) -> None:
    result = whole
    assert len(evaluated(result.study)) == TRIALS
    assert states(result.study) == {TrialState.COMPLETE}
    assert all(trial.user_attrs["relative_cost"] <= LIMIT for trial in result.study.trials)

    # In this world the most steps win; fewer steps has four.
    assert result.finalists.verdict == "better"
    assert result.baseline.id == "s4"
    assert result.policy.steps > 4
    assert result.policy.key == result.finalists.candidates[0].policy.key
    losses = [each.quality.loss.value for each in result.finalists.candidates]
    assert losses == sorted(losses) and len(losses) == 3

    policy = read_policy(result.run_dir / "policy.json")
    assert policy.key == result.policy.key
    assert policy.budget == "40%"
    assert policy.cost is not None and policy.cost.relative <= LIMIT and len(policy.cost.measured) == 1
    assert policy.quality is not None and policy.quality.difference.high < 0 and policy.quality.images == 12
    assert policy.quality.full.loss.value == 0 and policy.quality.fewer_steps_count == 4
    assert policy.provenance is not None and policy.provenance.study == result.study.study_name
    assert policy_of(result.study.trials[policy.provenance.trial or 0]).key == policy.key
    assert policy.model == full_policy(pipe, 10).model

    document = json.loads((result.run_dir / "finalists.json").read_text())
    assert document["verdict"] == "better" and len(document["contenders"]) == 5
    assert [len(pictures) for pictures in result.previews] == [12, 12, 12] == [len(result.preview_prompts)] * 3


@pytest.mark.parametrize(("trials", "crossed"), [(50, 10), (TRIALS, 0)])
def test_solvers_are_crossed_with_guidance_before_other_recipes_where_there_is_room(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], trials: int, crossed: int
) -> None:
    study = tune(pipe, "40%", **arguments | {"trials": trials}).study
    begun = sorted(evaluated(study), key=lambda trial: trial.datetime_start or datetime.max)
    order = [trial.user_attrs for trial in begun]
    caches = next(place for place, given in enumerate(order) if given.get(RECIPE, "").startswith("DeepCache"))
    recipes = [place for place, given in enumerate(order) if RECIPE in given]
    assert sum(COMBINES in given for given in order[:caches]) == crossed
    assert len(recipes) == TRIALS and recipes[-1] == TRIALS - 1 + crossed, "no recipe is left out"


def test_nothing_beats_fewer_steps_is_said_and_fewer_steps_exported(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    pictures.degradation = degradation_of_anything_else
    result = tune(pipe, "40%", **arguments)
    assert result.finalists.verdict == "no better" and not result.finalists.better
    assert result.policy.key == result.baseline.key
    assert result.policy.id == "s4"
    assert result.finalists.difference.value > 0
    assert read_policy(result.run_dir / "policy.json").key == result.policy.key


def test_every_trial_carries_what_the_dashboard_shows(whole: TuneResult) -> None:
    result = whole
    notes = result.study._storage.get_study_system_attrs(result.study._study_id)
    for trial in finished(result.study):
        artifacts = get_all_artifact_meta(trial, storage=result.study._storage)
        assert [artifact.mimetype for artifact in artifacts] == ["image/png"]
        assert (result.run_dir / "artifacts" / artifacts[0].artifact_id).read_bytes().startswith(b"\x89PNG")
        note = get_note_from_system_attrs(notes, trial._trial_id)
        assert trial.user_attrs["policy_id"] in note["body"] and f"{trial.value:.4f}" in note["body"]
        known = attributes(trial)
        assert known["policy_id"] == policy_of(trial).id
        assert known["loss"] == trial.value
        assert {"distance", "alignment", "fidelity", "seconds", "flops", "relative_cost"} <= known.keys()
    assert result.study.trials[0].user_attrs["recipe"] == "fewer steps"
    assert len(get_all_artifact_meta(result.study)) == 1


def test_the_same_policy_is_never_evaluated_twice(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    plain = space_for(pipe).recipes[0].values
    free = ("depth", "interval", "guidance_stop", "gate")
    few = {name: (value, value) for name, value in plain.items() if name not in free}
    few |= {"depth": (0, 2), "interval": (1, 3)}
    arguments |= {"trials": 30, "space": few}
    result = tune(pipe, "40%", **arguments)
    repeats = [trial for trial in result.study.trials if "duplicate_of" in attributes(trial)]
    assert repeats, "thirty candidates of so small a space repeat some"
    for trial in repeats:
        first = result.study.trials[attributes(trial)["duplicate_of"]]
        assert trial.value == first.value
        assert attributes(trial)["plan"] == attributes(first)["plan"]
    assert len(keys(result.study)) == len(set(keys(result.study))) == 30
    # Full run, candidates, then per held-out run one set of pictures, and the clock's.
    evaluated_on_tuning_prompts = pictures.made[: 4 + 1 + 30]
    assert len(set(evaluated_on_tuning_prompts[4:])) == 31


def test_same_arguments_same_candidates_and_policy(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], whole: TuneResult, tmp_path: Path
) -> None:
    same = tune(pipe, "40%", **arguments)
    longer, different = (
        tune(pipe, "40%", **arguments | {"run_dir": tmp_path / f"seed {seed}", "seed": seed, "trials": 24})
        for seed in (0, 1)
    )
    assert keys(same.study) == keys(whole.study)
    # Recipes are the same for any seed.
    assert keys(longer.study)[:10] == keys(different.study)[:10]
    assert keys(longer.study) != keys(different.study)
    assert same.policy.key == whole.policy.key
    assert same.finalists.difference == whole.finalists.difference


@pytest.mark.parametrize("call", [7, LATE])
def test_an_interrupted_search_resumes_to_the_same_end(
    call: int, pipe: Any, pictures: FakePictures, arguments: dict[str, Any], whole: TuneResult
) -> None:
    def interrupt(count: int, policy: Policy) -> None:
        if count == call:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(Interrupted, match="repeat the same command") as stopped:
        tune(pipe, "40%", **arguments)
    assert stopped.value.run_dir == arguments["run_dir"]
    assert not (arguments["run_dir"] / "policy.json").exists()

    pictures.before = lambda count, policy: None
    pictures.made.clear()
    resumed = tune(pipe, "40%", **arguments)
    assert len(evaluated(resumed.study)) == arguments["trials"]
    assert not states(resumed.study) & {TrialState.RUNNING, TrialState.WAITING}
    recipes = [
        {t.user_attrs["recipe"] for t in study.trials if "recipe" in t.user_attrs}
        for study in (resumed.study, whole.study)
    ]
    assert recipes[0] == recipes[1]
    if call == LATE:
        assert sorted(keys(resumed.study)) == sorted(keys(whole.study))
        assert resumed.policy.key == whole.policy.key
    # The full run's pictures and those of finished candidates are not made again.
    remaining = arguments["trials"] - (call - BEFORE_THE_SEARCH)
    assert sorted(pictures.made[:remaining]) == sorted(keys(resumed.study)[-remaining:])


def test_a_trial_left_running_by_a_killed_process_is_run_again(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTDIFF_HEARTBEAT", "1")
    values = {
        "scale": 1,
        "switch": 7,
        "depth": 2,
        "interval": 5,
        "warm_up": 3,
        "cool_down": 1,
        "late_interval": 2,
        "late_start": 12,
        "second_depth": 1,
        "second_interval": 2,
        "middle": 0,
        "forecast": 1,
        "guidance_start": 2,
        "guidance_stop": 13,
        "guidance_factor": 5,
        "gate": 1,
        "handoff": 1,
        "solver": 1,
        "skew": -2,
    }
    killed = optuna.load_study(study_name="study", storage=sqlite_url(continued["run_dir"] / "study.db"))
    killed.enqueue_trial(values)
    space_for(pipe).values_of(killed.ask())
    resumed = tune(pipe, "40%", **continued | {"trials": TRIALS + 1})
    assert TrialState.RUNNING not in states(resumed.study)
    again = [trial for trial in resumed.study.trials if trial.params == values]
    assert [trial.state for trial in again] == [TrialState.FAIL, TrialState.COMPLETE]
    assert len(evaluated(resumed.study)) == TRIALS + 1


def test_a_finished_search_is_not_searched_again(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], whole: TuneResult
) -> None:
    again = tune(pipe, "40%", **continued)
    assert len(again.study.trials) == len(whole.study.trials)
    assert again.policy.key == whole.policy.key
    # Only the clock makes pictures: of three runs, once to warm up and four times timed.
    assert len(pictures.made) == 15


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "its seed was 0, now it is 1"),
        ({"images": 10}, "its images were 12, now they are 10"),
        ({"guidance_scale": 3.0}, "its guidance scale was 7.5, now it is 3.0"),
        ({"prompts": HELD_OUT}, "its prompts were"),
    ],
)
def test_another_configuration_is_refused(
    change: dict[str, Any], named: str, pipe: Any, pictures: FakePictures, continued: dict[str, Any]
) -> None:
    before = (continued["run_dir"] / "policy.json").read_bytes()
    with pytest.raises(InputError, match=named):
        tune(pipe, "40%", **continued | change)
    assert (continued["run_dir"] / "policy.json").read_bytes() == before and not pictures.made


def test_another_set_of_weights_is_refused(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        retrained.conv_in.weight += 1e-3
    monkeypatch.setattr(pipe, "unet", retrained)
    with pytest.raises(InputError, match="its weights were"):
        tune(pipe, "40%", **continued)


def test_a_failing_candidate_does_not_stop_the_search(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    def fail(count: int, policy: Policy) -> None:
        if policy.cache and policy.cost is None and count > 4:
            raise RuntimeError("CUDA out of memory")

    pictures.before = fail
    result = tune(pipe, "40%", **arguments)
    failed = [trial for trial in result.study.trials if trial.state is TrialState.FAIL]
    assert failed and all(policy_of(trial).cache for trial in failed)
    assert {trial.user_attrs["failure"] for trial in failed} == {"RuntimeError: CUDA out of memory"}
    assert len(evaluated(result.study)) == arguments["trials"]
    assert all(not candidate.policy.cache for candidate in result.finalists.candidates)


def test_knobs_that_no_step_count_of_is_within_the_budget_fail_a_trial_and_the_next_one_runs(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dict(space_for(pipe).recipes[0].values)
    too_costly = plain | {"interval": 6, "skew": 3}
    propose = Proposer.propose
    monkeypatch.setattr(
        Proposer, "propose", lambda self, values: propose(self, values) if values != too_costly else None
    )
    study = optuna.load_study(study_name="study", storage=sqlite_url(continued["run_dir"] / "study.db"))
    study.enqueue_trial(too_costly)
    result = tune(pipe, "40%", **continued | {"trials": TRIALS + 1})
    (failed,) = [trial for trial in result.study.trials if trial.state is TrialState.FAIL]
    assert "no step count" in failed.user_attrs["failure"] and failed.params == too_costly
    assert len(evaluated(result.study)) == TRIALS + 1


def test_pictures_that_score_nan_fail_their_trial(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], whole: TuneResult
) -> None:
    doomed = keys(whole.study)[2]

    class Blind(ReadingScorer):
        def image_features(self, images: torch.Tensor) -> torch.Tensor:
            features = super().image_features(images)
            return features * float("nan") if doomed in pictures.made[-1:] else features

    result = tune(pipe, "40%", **arguments | {"scorer": Blind(), "timeout": 0.0})
    (failed,) = (trial for trial in result.study.trials if trial.state is TrialState.FAIL)
    assert attributes(failed)["policy_key"] == doomed
    assert "not finite" in failed.user_attrs["failure"]


def test_the_pipeline_is_left_as_it_was(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    shown: list[bool] = []
    pictures.before = lambda count, policy: shown.append(not pipe._progress_bar_config["disable"])
    pipe.set_progress_bar_config(disable=False)
    tune(pipe, "40%", **arguments | {"timeout": 0.0})
    assert not any(shown)
    assert pipe._progress_bar_config == {"disable": False}
    pipe.set_progress_bar_config(disable=True)


def test_recipes_run_even_without_time(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    result = tune(pipe, "40%", **arguments | {"timeout": 0.0})
    assert all("recipe" in trial.user_attrs for trial in result.study.trials)
    assert len(result.study.trials) >= 5


def test_a_search_that_runs_out_of_time_says_so_and_goes_on(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    given = arguments | {"quiet": False, "trials": 24}
    cut_off = tune(pipe, "40%", **given | {"timeout": 0.001})
    made = len(evaluated(cut_off.study))
    said = f"The search's time of 0:00 is over after {made} of 24 candidates; the same command again tries the others."
    assert said in " ".join(capfd.readouterr().err.split())
    whole = tune(pipe, "40%", **given | {"timeout": 600.0})
    assert made < len(evaluated(whole.study)) == 24
    assert "is over" not in capfd.readouterr().err


def test_a_reader_does_not_stop_the_search(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    """Holds a read lock for longer than SQLite waits by default, as a dashboard on a slow disk may."""
    database = arguments["run_dir"] / "study.db"

    def read(count: int, policy: Policy) -> None:
        if count != BEFORE_THE_SEARCH:
            return
        connection = sqlite3.connect(database, check_same_thread=False)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM trials").fetchall()
        threading.Timer(6, connection.close).start()

    pictures.before = read
    result = tune(pipe, "40%", **arguments | {"timeout": 0.0})
    assert states(result.study) == {TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": "0%"}, "budget '0%'"),
        ({"budget": "3%"}, "pays for no complete denoising step"),
        ({"trials": 0}, "trials is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"images": 4}, "images is 4"),
        ({"height": 63}, "height is 63"),
        ({"seed": -1}, "seed is -1"),
        ({"weight_fd": 0.0, "weight_clip": 0.0}, "nor both zero"),
        ({"weight_fd": -1.0}, "must not be negative"),
        ({"objective": "beauty"}, "no objective called 'beauty'"),
        ({"objective": "fidelity", "weight_fd": 1.0}, "has no weights"),
        ({"distance": "fid"}, "no distance called 'fid'"),
        ({"network": "inceptoin"}, "did you mean 'inception'"),
        ({"space": {"intervall": (1, 2)}}, "no knob 'intervall'; did you mean 'interval'"),
        ({"space": {"interval": (1, 99)}}, "takes values from 1 to 50, not 99"),
        ({"space": "/no/such/file.toml"}, "Cannot read the search space"),
        ({"prompts": None}, "give prompts"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": "/no/such/file.txt"}, "Cannot read prompts"),
        ({"prompts": ["only one"], "held_out": None}, "too few to set some aside"),
        ({"reference": "/no/such/folder"}, "reference /no/such/folder has 0 pictures"),
        ({"scorer": "/no/such/folder"}, "is no scoring model"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    change: dict[str, Any], message: str, pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message) as error:
        tune(pipe, **{"budget": "40%"} | arguments | change)
    assert "\n" not in str(error.value)
    assert not arguments["run_dir"].exists() and not pictures.made


def test_a_pipeline_under_a_policy_is_refused(pipe: Any, arguments: dict[str, Any]) -> None:
    from autotune.runtime import applied

    with applied(pipe, Policy(steps=3)), pytest.raises(InputError, match="already runs under a policy"):
        tune(pipe, "40%", **arguments)


@pytest.fixture
def target(pipe: Any) -> Profile:
    return synthetic_profile(Pricer(pipe), (2, 4))


def test_a_budget_in_time_and_memory_on_a_target_is_kept_by_every_candidate(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], target: Profile
) -> None:
    result = tune(pipe, "50%ms,60%", target=target, max_cache_memory="20kB", **arguments)
    timed = Pricer(pipe, target=target)
    full = timed.price(Policy(steps=10), 2).latency_ms
    assert full is not None
    for trial in evaluated(result.study):
        cost = timed.price(policy_of(trial), 2)
        assert cost.latency_ms is not None and cost.latency_ms <= 0.5 * full
        assert cost.relative <= 0.6 and cost.memory_bytes <= 20_000
        assert attributes(trial)["latency_ms"] == pytest.approx(cost.latency_ms, abs=1e-3)
        assert attributes(trial)["memory_bytes"] == cost.memory_bytes

    policy = read_policy(result.run_dir / "policy.json")
    assert policy.budget == "50%ms,60%" and policy.cost is not None
    (predicted,) = policy.cost.predicted
    assert (predicted.device, predicted.batch_size) == ("a GPU", 2)
    assert predicted.ms == pytest.approx(timed.price(policy, 2).latency_ms, abs=1e-3)
    assert predicted.relative <= 0.5
    # The profile was made up with another release of torch.
    assert any("torch 2" in note for note in result.notes)


def test_another_target_is_another_search(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], target: Profile
) -> None:
    tune(pipe, "50%ms", target=target, **arguments)
    other = target.model_copy(update={"date": "2027-01-01"})
    with pytest.raises(InputError, match="target"):
        tune(pipe, "50%ms", target=other, **arguments)


def test_without_a_target_this_machine_is_profiled_for_a_budget_in_time(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def local(pipe: Any, pricer: Pricer, batches: Any, scales: Any, on_progress: Any = None) -> tuple[Profile, Path]:
        asked.append((batches, scales))
        return synthetic_profile(pricer, batches), tmp_path

    monkeypatch.setattr("autotune.workflows.setup.local_profile", local)
    assert tune(pipe, "40%", **arguments).policy.cost is not None and not asked
    arguments |= {"study_name": "time", "run_dir": arguments["run_dir"] / "time"}
    result = tune(pipe, "2x", call_batch=4, space={"scale": (1, 3)}, **arguments)
    assert asked == [([4], [0.5, 0.75, 1.0])], "at the sizes that the search asks for"
    assert result.policy.cost is not None and result.policy.cost.predicted[0].batch_size == 4


def test_a_profile_without_the_batch_is_refused_before_anything_is_written(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], target: Profile
) -> None:
    with pytest.raises(InputError, match="for batch 2, 4 and none for 3"):
        tune(pipe, "50%ms", target=target, call_batch=3, **arguments)
    assert not pictures.made and not any(arguments["run_dir"].glob("*"))


def test_a_narrowed_space_is_kept_to_and_belongs_to_the_study(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "space.toml"
    file.write_text("[knobs]\ninterval = [2, 3]\nscale = 0\nswitch = 0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = tune(pipe, "40%", **arguments, space=file)
    policies = [policy_of(trial) for trial in finished(result.study)]
    assert policies[0] == result.baseline.model_copy(update={"model": policies[0].model}), "fewer steps, all the same"
    assert not any(policy.resolution for policy in policies)
    assert all(2 <= trial.params["interval"] <= 3 for trial in result.study.trials[1:])
    with pytest.raises(InputError, match="its knobs were"):
        tune(pipe, "40%", **arguments)


def test_fidelity_needs_no_reference_and_keeps_the_pictures_one_had(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    pictures.degradation = degradation_of_anything_else
    result = tune(pipe, "40%", **arguments | {"judges": None, "objective": "fidelity"})
    assert result.policy.quality is not None
    assert result.policy.quality.weights == {"fidelity": 1.0}
    assert not list(arguments["run_dir"].rglob("reference.safetensors"))
    losses = {attributes(trial)["policy_key"]: attributes(trial) for trial in finished(result.study)}
    ordered = sorted(losses.values(), key=lambda each: each["loss"])
    assert [each["fidelity"] for each in ordered] == sorted(each["fidelity"] for each in ordered)


def test_the_last_third_refines_the_best_schedule(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    result = tune(pipe, "40%", **arguments | {"trials": 36})
    refined = [trial for trial in evaluated(result.study) if "refines" in trial.user_attrs]
    # Half of the last twelve have other knobs instead.
    assert len(refined) >= 2
    assert all(trial.user_attrs["relative_cost"] <= 0.4 for trial in refined)
    for trial in refined:
        assert trial.params == result.study.trials[trial.user_attrs["refines"]].params
    assert len(set(keys(result.study))) == 36


def test_a_finalist_that_breaks_on_held_out_pictures_gives_its_place_to_the_next(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(pipe, "40%", **arguments)
    best = whole.finalists.candidates[0]
    broken = FakePictures()

    def made(setup: Setup, policy: Policy, rows: Any, seeds: Any, on_batch: Any = None) -> Any:
        if policy.key == best.policy.key and rows[0].prompt in HELD_OUT:
            raise RuntimeError("no kernel for this")
        return broken(policy, [row.prompt for row in rows], seeds, on_batch)

    monkeypatch.setattr(Setup, "pictures", made)
    result = tune(pipe, "40%", **arguments | {"run_dir": arguments["run_dir"].with_name("other")})
    finalists = [run.policy.key for run in result.finalists.candidates]
    assert best.policy.key not in finalists and finalists
    assert result.finalists.better


def test_several_budgets_share_a_run(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    arguments["trials"] = TRIALS + 1
    results = tune_budgets(pipe, [parse_budget("30%"), parse_budget("60%")], TuneOptions(**arguments))
    folder = arguments["run_dir"]
    assert [result.policy_file.name for result in results] == ["policy-30.json", "policy-60.json"]
    for result, budget in zip(results, (0.3, 0.6), strict=True):
        policy = read_policy(result.policy_file)
        assert policy.cost is not None and policy.cost.relative <= budget
        assert (result.policy_folder / "finalists.json").is_file()
    assert {study.study_name for study in optuna.get_all_study_summaries(sqlite_url(folder / "study.db"))} == {
        "study-30pct", "study-60pct",
    }  # fmt: skip
    learned = [trial for trial in results[1].study.trials if "best of" in trial.user_attrs.get("recipe", "")]
    assert learned, "the second budget begins with the first one's best knobs"
    back = [trial for trial in results[0].study.trials if trial.user_attrs.get("recipe") == "best of 60%"]
    assert back, "and the first one ends with the second one's"
    assert all(trial.number >= TRIALS for trial in back)
    assert len({study_pictures.name for study_pictures in (folder / "outcomes").iterdir()}) == 1
    assert (
        results[1].finalists.candidates[0].quality.loss.value <= results[0].finalists.candidates[0].quality.loss.value
    )
    made = len(pictures.made)
    again = tune_budgets(pipe, [parse_budget("30%"), parse_budget("60%")], TuneOptions(**arguments))
    assert [result.policy.key for result in again] == [result.policy.key for result in results]
    assert len(set(pictures.made[made:])) <= 6, "only what is timed and shown is made again"


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "nsga2", "random"])
def test_every_sampler_searches(sampler: str, pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    result = tune(pipe, "40%", **arguments | {"sampler": sampler, "trials": TRIALS + 1})
    assert len(evaluated(result.study)) == TRIALS + 1
    with pytest.raises(InputError, match="its (sampler|early stopping) was"):
        tune(pipe, "40%", **arguments | {"sampler": "tpe", "trials": TRIALS + 1})


def test_candidates_behind_the_others_are_pruned(pipe: Any, batched: FakePictures, arguments: dict[str, Any]) -> None:
    arguments |= {"images": 128, "trials": 16, "prompts": [f"{n} {p}" for n in range(12) for p in PROMPTS]}
    result = tune(pipe, "40%", **arguments)
    pruned = [trial for trial in result.study.trials if trial.state is TrialState.PRUNED]
    assert pruned
    assert all(32 <= attributes(trial)["pictures"] < 128 for trial in pruned)
    assert all(run.trial not in {trial.number for trial in pruned} for run in result.finalists.candidates)
    plain = tune(pipe, "40%", **arguments | {"early_stopping": False, "run_dir": arguments["run_dir"] / "plain"})
    assert states(plain.study) == {TrialState.COMPLETE}
    assert result.spending.share < 1
    assert (plain.spending.share, plain.spending.skipped) == (1, 0)
    # What was not pruned scored the same.
    losses = {attributes(trial)["policy_key"]: trial.value for trial in evaluated(plain.study)}
    complete = [trial for trial in evaluated(result.study) if trial.state is TrialState.COMPLETE]
    compared = [trial for trial in complete if attributes(trial)["policy_key"] in losses]
    assert len(compared) >= 3
    assert all(trial.value == losses[attributes(trial)["policy_key"]] for trial in compared)


def test_a_disk_that_fills_up_as_the_policy_is_written(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any], whole: TuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = continued["run_dir"]
    before = (folder / "policy.json").read_bytes()
    (folder / "policy.json").unlink()
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == "policy.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Unavailable, match="No space left on device.*same command"):
        patch.setattr(os, "replace", full)
        tune(pipe, "40%", **continued)
    assert not [path for path in folder.iterdir() if "policy.json" in path.name], "nothing half written is left"
    tune(pipe, "40%", **continued)
    written = [json.loads(text) for text in (before, (folder / "policy.json").read_bytes())]
    assert written[0]["cache"] == written[1]["cache"] and written[0]["steps"] == written[1]["steps"]
