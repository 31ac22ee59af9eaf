"""``studies/README.md`` names every experiment, and its tables say what the files of results say."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.support.readme import ROOT

STUDIES = ROOT / "studies"
TEXT = (STUDIES / "README.md").read_text(encoding="utf-8")
SCRIPTS = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in STUDIES.rglob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
}
MODELS = ("emoji-unet", "emoji-dit")
# The table's names of estimators, and those of the files.
ESTIMATORS = {
    "plain Frechet distance alone": "plain FD alone",
    "Frechet + alignment": "frechet + alignment",
    "extrapolated to infinitely many, 32 directions, + alignment": "frechet-subspace-32-infinity + alignment",
    "KID + alignment": "kid + alignment",
    "CMMD + alignment": "cmmd + alignment",
    "alignment alone": "alignment alone",
    "feature distance to the full run's pictures alone": "change alone",
    "Frechet along 32 directions + alignment": "frechet-subspace-32 + alignment",
    "the default: the same + 4 x alignment": "frechet-subspace-32 + 4 x alignment",
    "the same + 8 x alignment": "frechet-subspace-32 + 8 x alignment",
    "the default, the full run's other pictures as reference": "default, own reference",
}


def document(name: str) -> Any:
    return json.loads((STUDIES / name).read_text(encoding="utf-8"))


def table(section: str, corner: str) -> dict[str, list[str]]:
    """The rows below the heading ``section`` of the table that begins with the cell ``corner``, by their first cell."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    (rows,) = re.findall(rf"^\| ?{re.escape(corner)} ?\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines())
    return {first.replace("**", ""): rest for first, *rest in cells}


def interval(numbers: Sequence[float], sign: str = "") -> str:
    value, low, high = numbers
    return f"{value:{sign}.3f} ({low:.3f} to {high:.3f})"


def test_every_script_is_named_and_no_other() -> None:
    named = {*re.findall(r"`python -m (studies\.[\w.]+)", TEXT)}
    assert len(SCRIPTS) > 15
    assert named == SCRIPTS


def test_every_section_is_in_the_index() -> None:
    index, *_ = TEXT.split("\n## ")
    listed = re.findall(r"^\| \[[^\]]+\]\(#([\w-]+)\)", index, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert listed == [slug for slug in slugs if slug != "what-is-missed"]


@pytest.mark.parametrize("model", MODELS)
def test_fixed_recipes(model: str) -> None:
    printed = table("Tuned policies against fixed recipes", f"`{model}`")
    for column, cell in enumerate(document(f"results/fixed_recipes-{model}.json")["cells"]):
        found = {each["method"]: each for each in cell["standings"]}
        tuned = found.pop("tuned")
        first, *others = printed
        assert printed[first][column] == f"{tuned['loss']:.3f} ({tuned['relative']:.0%})"
        for name in others:
            behind = found[name]["behind"] if name in found else None
            assert printed[name][column] == (interval(behind, sign="+") if behind else "no setting within 2 %"), name
        assert found.keys() <= {*others}


def test_fewer_or_cheaper_steps() -> None:
    levels = {
        level["budget"]: level["winners"] for level in document("results/steps_vs_cost-emoji-unet.json")["levels"]
    }
    columns = (("15%",), ("25%",), ("40%",), ("60%", "80%"))
    for arm, printed in table("Fewer steps or cheaper steps?", "").items():
        for cell, budgets in zip(printed, columns, strict=True):
            for budget in budgets:
                loss = levels[budget][arm]["quality"]["loss"]
                low, high = (round(loss[end], 2) + 0 for end in ("low", "high"))  # No -0.00.
                assert cell == f"{loss['value']:.3f} ({low:.2f} to {high:.2f})", (arm, budget)


@pytest.mark.parametrize("model", MODELS)
def test_search_efficiency(model: str) -> None:
    found: Mapping[str, Any] = document(f"results/search_efficiency-{model}.json")
    printed = table("How many candidates a search needs", f"`{model}`")
    assert printed.keys() == found["losses"].keys()
    for name, losses in found["losses"].items():
        bests = [f"{statistics.median(min(each[:count]) for each in losses):.3f}" for count in (25, 50, 100)]
        needed = [statistics.median(found["needed"][name][level]) for level in ("random", "NSGA-II", "the grid")]
        assert printed[name] == bests + [f"{each:g}" if each <= 100 else "not within 100" for each in needed], name


def test_search_savings() -> None:
    printed = table("What early stopping saves", "seed")
    for pair in document("results/search_savings-emoji-unet.json")["pairs"]:
        pictures = f"{pair['sparing']['pictures']} of {pair['plain']['pictures']}"
        assert printed.pop(str(pair["seed"])) == [pictures, f"{100 * pair['share']:.0f} %", interval(pair["apart"])]
    assert not printed


def test_estimators_of_quality() -> None:
    printed = table("Which estimator of quality", "n pictures")
    assert printed.keys() == ESTIMATORS.keys()
    found = {
        (each["model"], each["estimator"], each["n"]): f"{each['spearman']:.2f}"
        for model in MODELS
        for each in document(f"proxy/results/{model}.json")["results"]
    }
    for name, cells in printed.items():
        assert cells == [found[model, ESTIMATORS[name], n] for model in MODELS for n in (32, 64, 128, 256)], name


def judged() -> dict[tuple[str, int, str, int, int], Mapping[str, Any]]:
    """Results of the judges' study by model's letter, pictures, judge, pictures in pairs and steps of snapping."""
    return {
        (letter, each["n"], each["judge"], each["paired"], each["snapped"]): each
        for letter, model in zip("UT", MODELS, strict=True)
        for each in document(f"proxy/results/judges-{model}.json")["results"]
    }


def columns(corner: str) -> list[tuple[str, int]]:
    """Letters and pictures at the head of a table of the judges' study."""
    (head,) = re.findall(rf"^\| {re.escape(corner)} \|(.*)\|$", TEXT, re.MULTILINE)
    return [(letter, int(n)) for letter, n in (cell.split() for cell in head.split("|"))]


def test_judges() -> None:
    corner, found = "Spearman, regret, at 30 %", judged()
    for name, cells in table("Which judge", corner).items():
        for (letter, n), cell in zip(columns(corner), cells, strict=True):
            each = found[letter, n, name, n, 1]
            assert cell == f"{each['spearman']:.2f}, {each['regret']:.3f}, {each['cheap_regret']:.3f}", name


def test_pictures_in_pairs() -> None:
    corner, found = "default, in pairs", judged()
    *_, (default, _) = table("Which judge", "Spearman, regret, at 30 %").items()
    for name, cells in table("Which judge", corner).items():
        paired = name.removesuffix(" pictures")
        for (letter, n), cell in zip(columns(corner), cells, strict=True):
            each = found[letter, n, default, n if paired == "all" else int(paired), 1]
            assert cell == f"{each['spearman']:.2f}, {each['regret']:.3f}, {each['cheap_regret']:.3f}", name


def test_strengths_of_guidance_are_those_of_the_files() -> None:
    cells = zip(*(document(f"results/guidance_strength-{model}.json")["cells"] for model in MODELS), strict=True)
    shown = table("Stronger guidance in fewer steps", "policy")
    named = []
    for of_unet, of_dit in cells:
        for pair in zip(of_unet["strengths"], of_dit["strengths"], strict=True):
            (policy,) = {each["policy"] for each in pair}
            named.append(f"`{policy}`")
            flops, *losses = shown[named[-1]]
            assert flops == f"{pair[0]['relative']:.0%}".replace("%", " %")
            for each, loss in zip(pair, losses, strict=True):
                said = f"{each['loss']:.3f}" if each["factor"] == 1 else interval(each["difference"], sign="+")
                assert loss == said, policy
    assert [*shown] == named


def test_guidance_rates_are_those_of_the_files() -> None:
    rows = {model: document(f"results/guidance_rate-{model}.json")["rows"] for model in MODELS}
    shown = table("Guidance as a rate", "policy")
    assert len(shown) == len(rows[MODELS[0]])
    for of_unet, of_dit in zip(*rows.values(), strict=True):
        assert of_unet["policy"] == of_dit["policy"]
        errors = ["{:.4f} ({:.4f} to {:.4f})".format(*row["error"]) for row in (of_unet, of_dit)]
        assert shown[f"`{of_unet['policy']}`"] == [
            f"{of_unet['relative']:.0%}".replace("%", " %"),
            of_unet["kind"],
            *errors,
        ]


@pytest.mark.parametrize("model", MODELS)
def test_computing_steps_are_those_of_the_file(model: str) -> None:
    shown = table("Where steps lie", f"error of latents, `{model}`")
    budgets = document(f"results/schedules-{model}.json")["computing_steps"].values()
    for how, cells in shown.items():
        for cell, found in zip(cells, budgets, strict=True):
            (each,) = (row for row in found if row["how"] == how)
            apart = "{:.4f} ({:.4f} to {:.4f})".format(*each["apart"])
            assert cell == f"{each['error']:.4f}" + (f": {apart}" if how != "evenly" else "")
