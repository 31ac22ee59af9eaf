"""The whole life of a search, for one family of each kind by default: nothing is lost, and every lever was tried."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from autotune.cli import INTERRUPTED
from autotune.cost import measure_profile
from autotune.study.trials import RECIPE, is_repetition
from tests.conformance.campaign import STEPS, STOPPED_IN, Campaign, conduct
from tests.conformance.deployment import deployed_elsewhere
from tests.conformance.tuner import FROM_FOLDERS, command_line, in_brief, judged, search, size_of, three_candidates

# One of each kind: a U-Net, embedded guidance, two calls a step, classes, pictures to begin with, a solver on a flow.
BY_DEFAULT = ("sd", "flux-dev", "qwen-image", "dit", "sd-img2img", "sana")
FAMILIES = [pytest.param(name, marks=[] if name in BY_DEFAULT else pytest.mark.exhaustive) for name in FROM_FOLDERS]


@pytest.fixture(autouse=True, scope="module")
def _in_brief() -> Iterator[None]:
    with in_brief(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotune.cost.measure_profile", partial(measure_profile, rounds=1))
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return conduct(request.param, tmp_path_factory.mktemp(request.param))


def test_it_is_stopped_joined_and_taken_up_again(campaign: Campaign) -> None:
    begun, joined, ended = campaign.said
    assert begun.code == INTERRUPTED, begun.errors
    assert joined.code == INTERRUPTED, joined.errors
    assert ended.code in (0, 3), ended.errors
    # Of each who was stopped all but the candidate in hand is there; one that repeats another is done at once.
    repeats = {trial.number for trial in campaign.run.complete if is_repetition(trial)}
    first, second = campaign.after
    for before, after in (({}, first), (first, second)):
        new = after.keys() - before.keys()
        assert len(new) == STOPPED_IN - 1 or (len(new) == STOPPED_IN and new & repeats)


def test_no_candidate_is_lost_or_fails(campaign: Campaign) -> None:
    assert campaign.run.failures == []
    complete = {trial.number: trial.values[0] for trial in campaign.run.complete}
    for before in campaign.after:
        assert before.items() <= complete.items()
    recipes = Counter(trial.user_attrs[RECIPE] for trial in campaign.run.complete if RECIPE in trial.user_attrs)
    assert set(recipes.values()) == {1}


def test_every_lever_of_the_space_is_tried(campaign: Campaign) -> None:
    policies = campaign.run.policies
    tried = {name for name, lever in campaign.levers.items() if any(map(lever.shown, policies))}
    assert tried == set(campaign.levers)


def test_a_fresh_process_makes_the_pictures_that_were_judged(campaign: Campaign, tmp_path: Path) -> None:
    pictures = deployed_elsewhere(campaign.brought, campaign.run.folder / "policy.json", tmp_path)
    assert torch.equal(pictures, campaign.run.judged(campaign.run.exported))


def test_a_second_budget(campaign: Campaign, tmp_path: Path) -> None:
    few = three_candidates(campaign.name, tmp_path / "space.toml")
    said = command_line(*search(campaign.brought, tmp_path / "run", "--budget", "70%", "--budget", "50%", *few))
    assert said.code in (0, 3), said.errors
    for budget in (70, 50):
        policy = json.loads((tmp_path / "run" / f"policy-{budget}.json").read_text())
        assert policy["cost"]["relative"] <= budget / 100


def test_compare(campaign: Campaign, tmp_path: Path) -> None:
    policy = str(campaign.run.folder / "policy.json")
    said = command_line(
        "compare", "--policy", policy, *judged(campaign.brought, STEPS), "--out", str(tmp_path), "--json"
    )
    assert said.code == 0, said.errors
    assert len(json.loads(said.output)["runs"]) == 2


def test_generate(campaign: Campaign, tmp_path: Path) -> None:
    """A picture of each row: prompts one by one, all else from the file."""
    options, rows = campaign.brought.options, campaign.brought.rows
    if "--prompts" in options:
        rows = rows[:2]
        options = (*options[2:], *(word for row in rows for word in ("--prompt", row["prompt"])))
    elif campaign.brought.family.text == "class":
        (tmp_path / "rows.jsonl").write_text('{"class_label": 207}\n')
        options = (*options, "--inputs", str(tmp_path / "rows.jsonl"))
    policy = "--policy", str(campaign.run.folder / "policy.json")
    model = "--model", str(campaign.brought.model), *size_of(campaign.brought)
    said = command_line("generate", *model, *policy, *options, "--out", str(tmp_path), "--device", "cpu")
    assert said.code == 0, said.errors
    assert len(list(tmp_path.glob("*.png"))) == max(len(rows), 1)


def test_profile_and_price(campaign: Campaign, tmp_path: Path) -> None:
    model = "--model", str(campaign.brought.model), *size_of(campaign.brought)
    profile = str(tmp_path / "profile.json")
    guidance = "--guidance" if campaign.brought.family.guided else "--no-guidance"
    said = command_line("profile", *model, guidance, "--scales", "1", "--device", "cpu", "--out", profile, "--quiet")
    assert said.code == 0, said.errors
    policy = campaign.run.folder / "policy.json"
    strength = campaign.brought.family.strength
    begun = () if strength is None else ("--strength", str(strength))
    said = command_line("price", str(policy), *model, *begun, "--target", profile, "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["flops"] == json.loads(policy.read_text())["cost"]["flops"]


def test_describe_and_report(campaign: Campaign) -> None:
    said = command_line("describe", str(campaign.run.folder / "policy.json"), "--model", str(campaign.brought.model))
    assert said.code == 0, said.errors
    said = command_line("report", str(campaign.run.folder), "--json")
    assert said.code == 0, said.errors
    page = json.loads(said.output)
    assert page["finished"] and page["failed"] == 0
