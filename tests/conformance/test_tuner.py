"""Every family is tuned from the command line: searched, judged, exported, reported, and deployed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.conformance.deployment import deployed
from tests.conformance.test_contract import VARIANTS
from tests.conformance.tuner import FROM_FOLDERS, Run, Said, command_line, in_brief, search, three_candidates
from tests.support.builders import FAMILIES
from tests.support.folders import Brought, brought


@dataclass(frozen=True)
class Tuned:
    """A search and its run directory."""

    brought: Brought
    said: Said
    run: Run


@pytest.fixture(autouse=True, scope="module")
def _in_brief() -> Iterator[None]:
    with in_brief():
        yield


# Of those that begin with a picture or follow one, and share their denoiser with others, these by default.
BY_DEFAULT = {"sd-img2img", "sd-inpaint", "sdxl-img2img", "flux-inpaint", "sd-controlnet"}


def _case(name: str) -> Any:
    family = FAMILIES[name]
    follows = name in VARIANTS and (family.strength is not None or family.pictures)
    more = follows and name not in BY_DEFAULT
    return pytest.param(name, marks=[pytest.mark.exhaustive] if more else [])


@pytest.fixture(scope="module", params=map(_case, FROM_FOLDERS))
def tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    options = "--budget", "60%", *three_candidates(name, folder / "space.toml")
    model, run = brought(name), Run(folder / "run")
    return Tuned(model, command_line(*search(model, run.folder, *options)), run)


@pytest.fixture
def run(tuned: Tuned) -> Run:
    if tuned.said.code not in (0, 3):
        pytest.skip("it was not tuned")
    return tuned.run


def test_it_ends_with_a_policy_and_a_report(tuned: Tuned) -> None:
    assert tuned.said.code in (0, 3), tuned.said.errors
    assert (tuned.run.folder / "policy.json").is_file()
    assert (tuned.run.folder / "report.html").is_file()


def test_every_candidate_succeeds(run: Run) -> None:
    assert run.failures == []
    assert len(run.complete) == 3


def test_deployed_policies_make_the_pictures_that_were_judged(tuned: Tuned, run: Run) -> None:
    best = run.finalists[-1]
    assert run.exported.key in {policy.key for policy in run.finalists}
    for policy in {policy.key: policy for policy in (run.exported, best)}.values():
        assert torch.equal(deployed(tuned.brought, policy), run.judged(policy))
