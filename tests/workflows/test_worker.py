"""Joining a run from its storage and name alone, and being refused where scores would not compare."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from diffusers import StableDiffusionPipeline

import autotune
import autotune.evaluation.judges
from autotune.core.errors import InputError
from autotune.cost import parse_budget
from autotune.options import TuneOptions
from autotune.study.heartbeat import await_tuner, close, has_begun, is_closed
from autotune.study.manifest import Manifest, manifest_of, publish
from autotune.study.storage import open_storage
from autotune.study.trials import evaluated, sqlite_url
from autotune.workflows.tune import tune_budgets
from autotune.workflows.worker import JoinedStudy, studies_of, work
from tests.support.fake_search import (
    PROMPTS,
    FakePictures,
    ReadingScorer,
    search_arguments,
    tiny_pipeline,
    use_pictures,
)

BUDGETS, STUDIES = ("40%", "60%"), ["study-40pct", "study-60pct"]


@pytest.fixture(scope="module")
def _named() -> Iterator[None]:
    """A scorer that another process could name as well, and pictures that are a formula."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())
        use_pictures(FakePictures(), monkeypatch)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def tuned(loaded: Any, _named: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two budgets. Only to be read."""
    arguments = search_arguments(tmp_path_factory.mktemp("tuned") / "run") | {"scorer": "reading", "trials": 1}
    return tune_budgets(loaded, [parse_budget(each) for each in BUDGETS], TuneOptions(**arguments))[0].run_dir


@pytest.fixture
def url(tuned: Path, tmp_path: Path) -> str:
    """Of a copy of the run's studies."""
    return sqlite_url(Path(shutil.copy(tuned / "study.db", tmp_path)))


def changed(joined: JoinedStudy, **changes: Any) -> None:
    publish(joined.study, replace(joined.manifest, **changes))


def test_workers_join_all_budgets_of_a_run_by_its_name(url: str, loaded: Any, model: Path, tmp_path: Path) -> None:
    joined = studies_of(url, "study")
    assert [each.study.study_name for each in joined] == STUDIES
    assert [each.manifest.budget for each in joined] == list(BUDGETS)
    assert all(each.manifest.model == str(model) for each in joined)
    assert joined[0].manifest.arguments["prompts"] == PROMPTS
    before = [len(evaluated(each.study)) for each in joined]
    for each, trials in zip(joined, before, strict=True):
        changed(each, trials=trials + 1)

    (alone,) = studies_of(url, STUDIES[1])
    assert alone.study.study_name == STUDIES[1], "one budget's study has a name of its own"

    work(loaded, studies_of(url, "study"), tmp_path / "worker", quiet=True)
    assert [len(evaluated(each.study)) for each in joined] == [trials + 1 for trials in before]
    assert not (tmp_path / "worker" / "policy.json").exists() and list((tmp_path / "worker" / "artifacts").iterdir())


def test_another_model_is_refused_and_nothing_written(
    url: str, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = tiny_pipeline().unet
    with torch.no_grad():
        retrained.conv_in.weight += 1e-3
    monkeypatch.setattr(loaded, "unet", retrained)
    with pytest.raises(InputError, match="cannot join the study 'study-40pct': its weights were"):
        work(loaded, studies_of(url, "study"), tmp_path / "worker", quiet=True)
    assert not (tmp_path / "worker").exists()


def test_other_prompts_are_refused(url: str, loaded: Any, tmp_path: Path) -> None:
    joined = studies_of(url, "study")
    for each in joined:
        changed(each, arguments={**each.manifest.arguments, "prompts": PROMPTS[:-1]})
    with pytest.raises(InputError, match="its prompts were"):
        work(loaded, studies_of(url, "study"), tmp_path / "worker", quiet=True)


def test_another_version_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "__version__", "9.0")
    with pytest.raises(InputError, match="and this is 9.0; install the same version"):
        studies_of(url, "study")


def test_trials_in_an_older_form_are_refused(url: str) -> None:
    storage = open_storage(url)
    study = optuna.load_study(study_name=STUDIES[0], storage=storage)
    study.set_user_attr("format", 1)
    with pytest.raises(InputError, match="kept trials in another form; repeat the search under another --study-name"):
        studies_of(url, "study")


def test_what_exists_in_memory_only_cannot_be_joined(url: str) -> None:
    (joined,) = studies_of(url, STUDIES[0])
    changed(joined, alone="its scorer is an object in memory")
    with pytest.raises(InputError, match="cannot join the study 'study': its scorer is an object in memory"):
        studies_of(url, "study")


def test_no_such_study_names_those_there_are(url: str) -> None:
    optuna.create_study(study_name="other", storage=url)
    with pytest.raises(InputError, match="no study 'stud' in .*, the latest are 'study-40pct', 'study-60pct', 'other'"):
        studies_of(url, "stud")
    with pytest.raises(InputError, match="does not say how to join it"):
        studies_of(url, "other")


def test_long_lists_of_prompts_are_kept_in_pieces(url: str) -> None:
    study = optuna.load_study(study_name=STUDIES[0], storage=url)
    prompts = [f"{number * 7919 % 99991:x} {number**3:x} things" for number in range(8000)]
    manifest = Manifest("study", "1", 1, "40%", None, "cpu", "float32", {"prompts": prompts, "target": None})
    publish(study, manifest)
    assert study.user_attrs["invitation_count"] > 1
    # As much as MySQL takes.
    assert max(len(value) for value in study.user_attrs.values() if isinstance(value, str)) < 65_000
    assert manifest_of(study) == manifest
    publish(study, replace(manifest, arguments={"prompts": [], "target": None}))
    assert manifest_of(study).arguments["prompts"] == []


def test_a_search_that_nobody_can_join_starts_no_helpers(loaded: Any, _named: None, tmp_path: Path) -> None:
    def helpers(*_: Any, **__: Any) -> Any:
        raise AssertionError("they cannot join")

    options = TuneOptions(**search_arguments(tmp_path / "run"))
    with pytest.raises(InputError, match="no other process can join the search: its scorer is an object in memory"):
        tune_budgets(loaded, [parse_budget("40%")], options, helpers)
    assert not any(tmp_path.iterdir())


def test_workers_wait_for_the_tuner_of_a_study_that_it_closed_before(url: str) -> None:
    (joined,) = studies_of(url, STUDIES[0])
    close(joined.study)
    assert has_begun(joined.study) and is_closed(joined.study)
    await_tuner(joined.study)
    assert not has_begun(joined.study) and not is_closed(joined.study)
    close(joined.study, False)
    assert has_begun(joined.study) and not is_closed(joined.study)
