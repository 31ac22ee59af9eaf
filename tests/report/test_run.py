from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest

from autotune.core.errors import InputError
from autotune.policy import Interval
from autotune.report.facts import against_full, document, factor, facts_of, lines_of
from autotune.report.importance import importance_of
from autotune.report.page import plan_of, provenance, render, view_of
from autotune.report.run import read_run, study_url
from autotune.report.snippet import snippet
from autotune.results.search_record import FILE, read_search_record
from autotune.study.trials import attributes
from autotune.workflows.tune import TuneResult

from .conftest import TRIALS, url


def test_a_finished_run_is_read_as_the_search_saw_it(whole: TuneResult) -> None:
    run = read_run(whole.run_dir)
    assert run.finished and run.policy is not None and run.policy.to_dict()["cost"] == whole.policy.to_dict()["cost"]
    assert run.last_round is not None and run.last_round.winner.policy.key == whole.policy.key
    assert [each.number for each in run.evaluated] == [trial.number for trial in whole.study.trials]
    best = min(whole.study.trials, key=lambda trial: trial.value or 0)
    assert run.best is not None and run.policy_of(run.best).key == attributes(best)["policy_key"]


def test_cost_in_parts_is_the_price_of_the_exported_policy(whole: TuneResult) -> None:
    search_record = read_search_record(whole.run_dir)
    assert search_record is not None and whole.policy.cost is not None
    for contender in (whole.finalists.full, whole.finalists.fewer_steps, *whole.finalists.candidates[:1]):
        breakdown = search_record.breakdown(contender.policy)
        assert breakdown is not None
        for parts in (breakdown.steps, breakdown.groups, breakdown.parts):
            assert sum(part.flops for part in parts) == contender.cost.flops
    assert search_record.full.flops == whole.finalists.full.cost.flops


def test_the_head_says_what_was_found(whole: TuneResult) -> None:
    run = read_run(whole.run_dir)
    facts = facts_of(run)
    said = " ".join(facts.lead)
    assert facts.finished and "beats" in said and "12 prompts that the search never saw" in said
    assert [card.heading for card in facts.cards[:2]] == ["Compute", "Time"]
    assert facts.cards[3].figure == "better" and f"{whole.finalists.difference.value:+.3f}" in facts.cards[3].note
    lines = lines_of(run)
    assert [line.exported for line in lines] == [False, False, True, False, False]
    assert lines[2].name.startswith("policy, trial")


@pytest.mark.parametrize(
    ("low", "high", "needed", "figure", "quality"),
    [
        (-0.1, 0.1, None, "no difference seen", ", and in quality we cannot tell it from the full run."),
        (0.1, 0.3, None, "worse", ", but their quality is worse than the full run’s."),
        (-0.3, -0.1, None, "better", ", and their quality is better than the full run’s."),
        # Too few prompts to tell anything.
        (-0.3, -0.1, 99, "no difference seen", ", and in quality we cannot tell it from the full run."),
    ],
)
@pytest.mark.parametrize(
    ("time", "gain"),
    [
        (0.45, "2.2 times faster"),
        (1.5, "1.5 times slower"),
        (0.99, "about as fast"),
        (None, "with 2.5 times less compute"),
    ],
)
def test_one_plain_sentence_leads(
    finished: Path,
    low: float,
    high: float,
    needed: int | None,
    figure: str,
    quality: str,
    time: float | None,
    gain: str,
) -> None:
    path = finished / "finalists.json"
    document = json.loads(path.read_text())
    winner = next(each for each in document["contenders"] if each["name"] == document["winner"])
    winner["quality"]["loss"] = {"value": (low + high) / 2, "low": low, "high": high}
    winner["cost"]["relative"] = 0.4
    winner["time"] = (
        None if time is None else {"ms_per_image": 9.0, "relative": time, "batch_size": 8, "device": "a CPU"}
    )
    path.write_text(json.dumps(document | {"prompts_needed": needed}))
    run = read_run(finished)
    facts = facts_of(run)
    assert facts.lead[0] == f"The exported policy makes pictures {gain}{quality}"
    assert (facts.cards[0].figure, facts.cards[2].figure) == ("2.5 times less", figure)
    page = render(run)
    assert page.index(f'<p class="lead">{facts.lead[0]}</p>') < page.index('id="pictures"') < page.index('id="figures"')


def test_nothing_beaten_is_said_too(finished: Path) -> None:
    path = finished / "finalists.json"
    found = json.loads(path.read_text())
    found |= {"winner": "fewer steps", "verdict": "no better", "difference": {"value": 0.01, "low": -0.1, "high": 0.1}}
    path.write_text(json.dumps(found))
    run = read_run(finished)
    facts = facts_of(run)
    assert facts.title.endswith("take 4 plain steps") and facts.policy == "s4"
    assert facts.cards[3].figure == "no difference seen" and "+0.010" in facts.cards[3].note
    page = render(run)
    assert "the best policy found (not exported)" in page and "best policy found, trial" in page


def test_an_unfinished_run_claims_nothing(unfinished: Path) -> None:
    run = read_run(unfinished)
    facts = facts_of(run)
    assert not run.finished and not facts.finished and "not finished" in facts.title
    assert "16 candidates evaluated so far" in facts.lead[0]
    assert snippet(run) is None and plan_of(run) is not None
    sections = view_of(run)["sections"]
    assert [picture.run for picture in sections[0].prompts[0].pictures] == ["full run", "leader"]


def test_a_run_without_a_single_trial_is_shown(tmp_path: Path) -> None:
    optuna.create_study(study_name="new", storage=url(tmp_path))
    page = render(read_run(tmp_path), reload_seconds=10)
    assert "No candidate has been evaluated yet" in page and 'data-reload="10"' in page


def test_runs_of_before_there_were_outlines_are_shown(finished: Path) -> None:
    (finished / FILE).unlink()
    shutil.rmtree(finished / "pictures")
    run = read_run(finished)
    assert plan_of(run) is None and snippet(run) is None
    assert "a policy that beats fewer steps" in render(run)


def test_names_are_escaped(finished: Path) -> None:
    path = finished / "pictures" / "pictures.json"
    gallery = json.loads(path.read_text())
    gallery["prompts"][0]["prompt"] = "</script><img src=x onerror=alert(1)>"
    path.write_text(json.dumps(gallery))
    page = render(read_run(finished))
    assert "<img src=x" not in page and "&lt;img src=x" in page


@pytest.mark.parametrize("name", ["finalists.json", "search.json", "policy.json", "pictures/pictures.json"])
def test_damaged_files_are_named(finished: Path, name: str) -> None:
    (finished / name).write_text("{")
    with pytest.raises(InputError, match=Path(name).name):
        read_run(finished)


def test_a_damaged_picture_is_named(finished: Path) -> None:
    picture = next((finished / "pictures").glob("*.webp"))
    picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match=picture.name):
        render(read_run(finished))


def test_a_study_elsewhere_is_found(finished: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    shutil.move(finished / "study.db", elsewhere)
    with pytest.raises(InputError, match="--storage"):
        read_run(finished)
    storage = f"sqlite:///{elsewhere}"
    assert read_run(finished, storage).finished
    search_record = json.loads((finished / FILE).read_text()) | {"storage": storage}
    (finished / FILE).write_text(json.dumps(search_record))
    assert study_url(finished) == storage
    optuna.create_study(study_name="another", storage=storage)
    assert read_run(finished).study.study_name == "study"


def test_a_storage_without_the_study_is_refused(finished: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'other.db'}"
    optuna.create_study(study_name="another", storage=storage)
    with pytest.raises(InputError, match="no study 'study'"):
        read_run(finished, storage)


def test_importance_needs_enough_candidates(whole: TuneResult, large: Path) -> None:
    assert not importance_of(read_run(whole.run_dir))
    assert "Which knobs mattered" not in render(read_run(whole.run_dir))
    run = read_run(large)
    assert "Which knobs mattered" in render(run)
    found = importance_of(run)
    assert sum(found.values()) == pytest.approx(1) and list(found.values()) == sorted(found.values(), reverse=True)
    said = document(run, found)
    assert len(said["candidates"]) == TRIALS and said["failed"] > 0 and said["importance"] == found
    assert json.loads(json.dumps(said)) == said


def test_provenance_names_model_judges_and_versions(whole: TuneResult) -> None:
    facts = provenance(read_run(whole.run_dir))
    assert facts["judge of alignment"] == "ReadingScorer" and "version of torch" in facts
    assert facts["size"] == "32 x 32 pixels"


def test_words_claim_no_more_than_intervals() -> None:
    assert "we cannot tell it from" in against_full(Interval(value=0.1, low=-0.1, high=0.3))
    assert "worse" in against_full(Interval(value=0.2, low=0.1, high=0.3))
    assert "better" in against_full(Interval(value=-0.2, low=-0.3, high=-0.1))
    assert [factor(share, "less", "more") for share in (0.4, 0.96, 1.01, 1.5, 12.34)] == [
        "2.5 times less",
        "1.04 times less",
        "about the same",
        "1.5 times more",
        "12.3 times more",
    ]


def test_folders_of_several_budgets_find_the_study_above_them_wherever_that_is(finished: Path, tmp_path: Path) -> None:
    above = tmp_path / "moved"
    for name in ("25", "40"):
        shutil.copytree(finished, above / name)
        (above / name / "study.db").unlink()
    shutil.move(finished / "study.db", above / "study.db")
    assert read_run(above / "40").finished
    optuna.create_study(study_name="another", storage=url(above))
    assert read_run(above / "25").study.study_name == "study"


def test_the_folder_above_those_of_several_budgets_names_them(
    finished: Path,
) -> None:
    above = finished.parent / "both"
    for name in ("25", "40"):
        (above / name).mkdir(parents=True)
        shutil.copy(finished / FILE, above / name)
    shutil.copy(finished / "study.db", above)
    with pytest.raises(InputError) as refused:
        read_run(above)
    assert str(refused.value).endswith(f"give {above / '25'} or {above / '40'}")
