"""A floor on the command line: what it says, what it exports, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import run
from autotune.cli.dry_run import run_dry
from autotune.cli.models import ModelSource
from autotune.cli.requests import TuneRequest
from autotune.cli.tune import run_tune
from autotune.cost import parse_budget
from autotune.options import TuneOptions
from autotune.policy import load_policies, read_policy
from autotune.quality.floor import Floor
from tests.support.fake_search import FakePictures, search_arguments, tiny_pipeline, use_pictures

from .conftest import Finished


@dataclasses.dataclass(frozen=True)
class Searched:
    folder: Path
    code: int
    output: str


def request(folder: Path, *floors: Floor, budget: str | None = None, names: tuple[str, ...] = ()) -> TuneRequest:
    options = TuneOptions(**search_arguments(folder) | {"quiet": False, "trials": 2})
    budgets = () if budget is None else (parse_budget(budget),)
    return TuneRequest(ModelSource.find("emoji-unet"), budgets, options, "cpu", "float32", names, floors)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """Pictures that are a formula, of a tiny pipeline."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_pictures(FakePictures(), monkeypatch)
        monkeypatch.setattr(ModelSource, "load", lambda *_, **__: tiny_pipeline())
        yield


def searched(asked: TuneRequest) -> Searched:
    with redirect_stdout(StringIO()) as output:
        code = run_tune(asked)
    return Searched(asked.folder, code, output.getvalue())


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A floor that cheap policies hold."""
    return searched(request(tmp_path_factory.mktemp("floor") / "run", Floor(loss=3.0)))


def test_it_says_what_is_certified(held: Searched) -> None:
    assert held.code == 0
    assert "Certified: the policy has a loss of at most 3 (held-out " in " ".join(held.output.split())
    assert "Less is enough" not in held.output


def test_the_report_and_the_documents_say_it_too(held: Searched, in_process: Callable[..., Finished]) -> None:
    page = (held.folder / "report.html").read_text()
    assert "a policy with a loss of at most 3" in page and "Floor: a loss of at most 3" in page
    last = json.loads((held.folder / "finalists.json").read_text())["floor"]
    assert last["met"] and last["sought"] == "FLOPs" and last["certificate"]["max_loss"] == 3
    policy = held.folder / "policy.json"
    assert json.loads(policy.read_text())["quality"]["certificate"] == last["certificate"]
    shown = in_process("describe", str(policy)).output
    assert "certified" in shown and "a loss of at most 3 (held-out" in " ".join(shown.split())
    again = in_process("report", str(held.folder))
    assert again.code == 0, again.errors


def test_what_cannot_be_held_within_a_budget_ends_with_exit_3(tmp_path: Path) -> None:
    found = searched(request(tmp_path / "run", Floor(loss=0.001), budget="15%"))
    said = " ".join(found.output.split())
    assert found.code == 3 and "Nothing within 15% is certified to have a loss of at most 0.001" in said
    assert "Exported full run, s10," in said and "over the budget" in said
    assert read_policy(tmp_path / "run" / "policy.json").steps == 10
    assert "not certified" in (tmp_path / "run" / "report.html").read_text()


def test_floors_are_tiers_of_one_file(held: Searched, tmp_path: Path) -> None:
    shutil.copytree(held.folder, tmp_path / "run")
    found = searched(request(tmp_path / "run", Floor(0.0), Floor(3.0), names=("lossless", "draft")))
    tiers = load_policies(tmp_path / "run" / "policies.json").tiers
    assert found.code == 0 and list(tiers) == ["lossless", "draft"]
    certificates = [each.quality.certificate for each in tiers.values() if each.quality is not None]
    assert [each.max_loss for each in certificates if each is not None] == [0, 3]
    assert "Floor loss 0" in found.output and (tmp_path / "run" / "tiers.html").is_file()


def test_a_dry_run_prices_the_budgets_that_may_be_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_dry(request(tmp_path / "run", Floor(0.1))) == 0
    said = capsys.readouterr().out
    assert [f"a budget of {share}" in said for share in ("40%", "60%", "80%")] == [True] * 3
    assert "These budgets are searched at most" in said and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-loss", "-1"), "greater than or equal to 0"),
        (("--max-loss", "much"), "--max-loss"),
        (("--max-loss", "0.1", "--budget", "40%", "--budget", "20%"), "one --budget at most"),
        (("--max-loss", "0.1", "--frontier"), "one --budget at most"),
        (("--max-change", "0.1", "--tier", "draft=20%"), "one --budget at most"),
        (("--max-loss", "0.1", "--explain"), "--explain compares budgets"),
        (("--tier", "high=loss:0.1", "--tier", "draft=20%"), "give every tier one, or none"),
        (("--tier", "high=loss:0.1,40%"), "it takes no budget"),
        (("--tier", "high=loss:0.1,loss:0.2"), "a floor is loss:X, change:X or both"),
        (("--tier", "high=loss:much"), "much is no number"),
        (("--tier", "high=change:-1"), "max_change is -1"),
        (("--tier", "high=loss:0.1", "--tier", "other=loss:0.1"), "the floor loss 0.1 is given twice"),
        (("--tier", "high=loss:0.1", "--explain"), "--explain compares budgets"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["tune", *options]) == 2
    assert words in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_the_options_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TuneRequest] = []
    monkeypatch.chdir(tmp_path)

    def ask(request: TuneRequest) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr("autotune.cli.tune.run_tune", ask)
    (tmp_path / "mine.toml").write_text("max-loss = 0.05\n")
    (tmp_path / "tiers.toml").write_text('[tiers]\nlossless = "loss:0"\nhigh = "loss:0.05,change:0.2"\n')
    for options in (
        ("--max-loss", "0.02"),
        ("--max-loss", "0", "--max-change", "0.1", "--budget", "2x"),
        ("--study", "mine.toml"),
        ("--study", "tiers.toml"),
    ):
        assert run(["tune", *options]) == 0
    assert [each.floors for each in asked] == [
        (Floor(0.02),), (Floor(0, 0.1),), (Floor(0.05),), (Floor(0), Floor(0.05, 0.2))
    ]  # fmt: skip
    assert [tuple(map(str, each.budgets)) for each in asked] == [(), ("2x",), (), ()]
    assert [each.tiers for each in asked] == [(), (), (), ("lossless", "high")]
    assert asked[1].folder == Path("runs/emoji-unet-loss-0-and-change-0.1-2x")
