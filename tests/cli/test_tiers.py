"""Several named policies in one file: searched for with ``--tier NAME=COST``, and taken by every command after that."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from autotune.cli import run
from autotune.cli.models import ModelSource
from autotune.cli.requests import CompareRequest, TuneRequest
from autotune.cli.tune import run_tune
from autotune.cost import parse_budget
from autotune.models.shipped import demo_pipeline
from autotune.options import TuneOptions
from autotune.policy import CacheRule, Guidance, Policy, PolicySet, load_policies, read_policy
from autotune.runtime import describe_model
from autotune.workflows.setup import Setup
from tests.support.fake_search import FakePictures, of_prompts, search_arguments, tiny_pipeline

from .conftest import Finished
from .test_study_file import asked, study

__all__ = ["asked", "study"]


@dataclasses.dataclass(frozen=True)
class Searched:
    folder: Path
    code: int
    output: str


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search for two tiers whose pictures are a formula."""
    from contextlib import redirect_stdout
    from io import StringIO

    folder, output = tmp_path_factory.mktemp("tiers") / "run", StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(output):
        fake = FakePictures()
        monkeypatch.setattr(Setup, "pictures", lambda setup, *args, **more: of_prompts(fake, *args, **more))
        monkeypatch.setattr(ModelSource, "load", lambda *_, **__: tiny_pipeline())
        options = TuneOptions(**search_arguments(folder) | {"quiet": False, "trials": 4})
        budgets = tuple(map(parse_budget, ("60%", "30%")))
        source = ModelSource.find("emoji-unet")
        code = run_tune(TuneRequest(source, budgets, options, "cpu", "float32", ("high", "draft")))
    return Searched(folder, code, output.getvalue())


def test_a_search_ends_with_one_file_of_what_each_budget_exports(searched: Searched) -> None:
    tiers = load_policies(searched.folder / "policies.json").tiers
    assert searched.code in (0, 3) and list(tiers) == ["high", "draft"]
    for name, label in (("high", "60"), ("draft", "30")):
        assert tiers[name] == read_policy(searched.folder / f"policy-{label}.json")
        cost, quality = tiers[name].cost, tiers[name].quality
        assert cost is not None and quality is not None and cost.relative <= int(label) / 100
    lines = [line.split()[:2] for line in searched.output.splitlines()]
    assert ["full", "10"] in lines and ["draft", str(tiers["draft"].steps)] in lines
    assert "policies.json" in searched.output and "tiers.html" in searched.output


def test_the_page_has_a_table_and_a_row_of_pictures_for_each_tier(searched: Searched) -> None:
    page = (searched.folder / "tiers.html").read_text()
    table, pictures = page.split('<section id="pictures">')
    rows = re.findall(r'<th scope="row">(?:<a href="([^"]+)">)?(\w+)', table)
    assert rows == [("", "full"), ("60/report.html", "high"), ("30/report.html", "draft")]
    assert all((searched.folder / link).is_file() for link, _ in rows if link)
    assert len(re.findall(r"<figcaption><strong>(\w+)", pictures)) == 3
    shown = [len(re.findall("<img", row)) for row in pictures.split("<figcaption>")[1:]]
    assert shown == [8, 8, 8]
    # Those of the same inputs by different tiers differ.
    images = [re.findall(r'src="([^"]+)"', row) for row in pictures.split("<figcaption>")[1:]]
    assert len({row[0] for row in images}) == 3
    assert "http:" not in page and "https:" not in page


def test_report_makes_the_page_again(searched: Searched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "again.html"
    assert run(["report", str(searched.folder), "--out", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(page) and list(document["tiers"]) == ["full", "high", "draft"]
    assert document["tiers"]["draft"]["loss"]["value"] > 0

    def without_date(text: str) -> str:
        return re.sub(r"on \d{4}-\S+ \S+ UTC", "", text)

    assert without_date(page.read_text()) == without_date((searched.folder / "tiers.html").read_text())


@pytest.fixture
def tiers(tmp_path: Path) -> PolicySet:
    """For the shipped model, in ``policies.json``."""
    model = describe_model(demo_pipeline(), 20)
    rule = CacheRule(units=("up_blocks.1",), compute_steps=(0, 2))
    found = PolicySet(
        tiers={
            "high": Policy(model=model, steps=4, guidance=Guidance(stop_step=2)),
            "draft": Policy(model=model, steps=3, cache=(rule,)),
        }
    )
    found.save(tmp_path / "policies.json")
    return found


Postdiff = Callable[..., Finished]


def test_describe_says_what_each_does_and_draws_one(in_process: Postdiff, tiers: PolicySet) -> None:
    all_of_them = in_process("describe", "policies.json")
    assert all_of_them.code == 0, all_of_them.errors
    for words in ("full", "s4-g2", "draft: 3 steps. Output of up_blocks.1 computed in 2 steps", "--tier NAME"):
        assert words in all_of_them.output
    document = json.loads(in_process("describe", "policies.json", "--json").output)
    assert document["tiers"]["high"]["policy"] == json.loads(json.dumps(tiers.tiers["high"].to_dict())) | {
        "provenance": document["tiers"]["high"]["policy"]["provenance"]
    }
    one = in_process("describe", "policies.json", "--tier", "draft")
    assert "Its plan on emoji-unet" in one.output and "s3-up_blocks.1" in one.output


def test_price_has_a_line_for_each_and_all_of_one(in_process: Postdiff, tiers: PolicySet) -> None:
    lines = [line.split() for line in in_process("price", "policies.json").output.splitlines()]
    shares = {line[0]: line[-2] for line in lines if line and line[0] in ("full", "high", "draft")}
    # Two of the four steps have guidance, twenty steps of two branches are the full run.
    assert shares["full"] == "100.0%" and shares["high"] == "15.0%"
    document = json.loads(in_process("price", "policies.json", "--json").output)["tiers"]
    one = json.loads(in_process("price", "policies.json", "--tier", "draft", "--json").output)
    assert document["draft"] == one and shares["draft"] == f"{one['relative']:.1%}"
    full = json.loads(in_process("price", "policies.json", "--tier", "full", "--json").output)
    assert full["relative"] == 1


def test_generate_makes_the_pictures_of_the_tier(in_process: Postdiff, tiers: PolicySet, tmp_path: Path) -> None:
    tiers.tiers["draft"].save(tmp_path / "draft.json")
    asked = ("generate", "--prompt", "fluent red apple", "--device", "cpu")
    for options in (("policies.json", "--tier", "draft", "--out", "a.png"), ("draft.json", "--out", "b.png")):
        done = in_process(*asked, "--policy", *options)
        assert done.code == 0, done.errors
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert ImageChops.difference(one, other).getbbox() is None


def test_compare_takes_all_of_them(
    in_process: Postdiff, tiers: PolicySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Policy(steps=2).save(tmp_path / "two.json")
    taken: list[Any] = []

    def take(request: CompareRequest) -> int:
        taken.append(request.policies)
        return 0

    monkeypatch.setattr("autotune.cli.compare.run_compare", take)
    assert in_process("compare", "--policy", "policies.json", "--policy", "two.json").code == 0
    assert {name: policy.steps for name, policy in taken[0].items()} == {"high": 4, "draft": 3, "two": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "--policy", "policies.json"], "holds the tiers high, draft; say which with --tier"),
        (["generate", "--policy", "policies.json", "--tier", "drafts"], "no such tier; did you mean 'draft'?"),
        (["generate", "--policy", "one.json", "--tier", "draft"], "one.json holds one"),
        (["generate", "--tier", "draft"], "--tier draft: of which policies?"),
        (["describe", "one.json", "--tier", "draft"], "one.json holds one"),
        (["describe", "emoji-unet", "--tier", "draft"], "emoji-unet is none"),
        (
            ["price", "policies.json", "--model", "emoji-dit"],
            "policies.json, tier high: the policy was made for",
        ),
        (["tune", "--tier", "draft"], "write a name and what it may cost, such as draft=25%"),
        (["tune", "--tier", "full=25%"], "'full' is the full run"),
        (["tune", "--tier", "Draft=25%"], "'Draft' is no name for a tier"),
        (["tune", "--tier", "a=25%", "--tier", "a=30%"], "a is given twice"),
        (["tune", "--tier", "a=25%", "--tier", "b=25%"], "the budget 25% is given twice"),
        (["tune", "--tier", "a=fast"], "'fast'"),
        (["tune", "--tier", "a=25%", "--budget", "40%"], "--tier takes budgets of its own; leave --budget out"),
        (["tune", "--tier", "a=25%", "--frontier"], "--frontier takes budgets of its own; leave --tier out"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    in_process: Postdiff, tiers: PolicySet, arguments: list[str], words: str, tmp_path: Path
) -> None:
    Policy(steps=3).save(tmp_path / "one.json")
    before = sorted(tmp_path.rglob("*"))
    more = ["--prompt", "an apple", "--out", "a.png"] if arguments[0] == "generate" else []
    done = in_process(*arguments, *more)
    assert done.code == 2 and words in done.errors and len(done.errors.splitlines()) == 1, done.errors
    assert sorted(tmp_path.rglob("*")) == before


def test_a_study_file_has_a_table_of_them(asked: list[TuneRequest], study: Callable[[str], str]) -> None:
    file = study('[tiers]\nhigh = "60%"\ndraft = "25%,2x"\n')
    assert run(["tune", "--study", file]) == 0
    assert asked[0].tiers == ("high", "draft") and [*map(str, asked[0].budgets)] == ["60%", "25%,2x"]
    # What the command line says wins.
    assert run(["tune", "--study", file, "--budget", "40%"]) == 0
    assert asked[1].tiers == () and [*map(str, asked[1].budgets)] == ["40%"]
    assert run(["tune", "--study", study('budget = "40%"'), "--tier", "draft=20%"]) == 0
    assert asked[2].tiers == ("draft",) and [*map(str, asked[2].budgets)] == ["20%"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tiers]\nhigh = 60\n", "gives names what they may cost"),
        ('tiers = "high"\n', "gives names what they may cost"),
        ('tier = ["high=60%"]\n[tiers]\ndraft = "25%"\n', "say the same thing twice"),
        ('budget = "40%"\n[tiers]\ndraft = "25%"\n', "--tier takes budgets of its own"),
    ],
)
def test_a_table_that_cannot_be_is_one_sentence(
    text: str, words: str, study: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", "--study", study(text)]) == 2
    assert words in capsys.readouterr().err
