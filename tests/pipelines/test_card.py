"""``postdiff.json``: a folder that carries one is tuned without options; one that says something wrong is refused."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import run
from autotune.core.errors import InputError
from autotune.core.interrupts import Interrupted
from autotune.evaluation.own_assets import own_judges, prompts_to_compare, prompts_to_tune
from autotune.models.shipped import DEMO_NAMES, demo_assets, shipped_folder, shipped_name
from autotune.options import JudgeOptions
from autotune.pipelines.card import ModelCard, read_card
from autotune.quality import split

PROMPTS = [f"noto thing {number}" for number in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of a user's own: all that belongs to it lies in its folder."""
    assets = demo_assets()
    model = Path(shutil.copytree(assets.folder, tmp_path / "mine"))
    shutil.copytree(assets.scorer_dir, model / "judge")
    (model / "prompts.txt").write_text("\n".join(PROMPTS))
    write(model, scorer="judge", reference="judge/reference/pictures.safetensors", prompts="prompts.txt")
    return model


def write(model: Path, **changes: Any) -> None:
    """A card of a model with 6 steps."""
    document = {"full_steps": 6, "guidance_scale": 2.0} | changes
    (model / "postdiff.json").write_text(json.dumps({key: each for key, each in document.items() if each is not None}))


def test_a_folder_with_a_card_is_tuned_without_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    module = import_module("autotune.workflows.session")
    prepared: list[Any] = []

    def stop(setup: Any, *_: Any) -> None:
        prepared.append(setup)
        raise Interrupted(Path("run"))

    monkeypatch.setattr(module, "evaluator_for", stop)
    few = ("--images", "8", "--held-out-images", "8", "--device", "cpu", "--quiet")
    assert run(["tune", "--model", "mine", *few]) == 130, capsys.readouterr().err
    (setup,) = prepared
    assert setup.model_name == "mine" and setup.full.steps == 6
    assert setup.configuration.guidance_scale == 2.0
    assert {row.prompt for row in setup.tuning.rows} <= set(PROMPTS)
    assert "distance" in setup.references and setup.judges.scorer_name == "judge"


def test_a_folder_with_a_card_is_compared_on_its_prompts(folder: Path) -> None:
    assert prompts_to_compare(read_card(folder)) == split(PROMPTS)[1]
    (folder / "unseen.txt").write_text("a cat\na dog\n")
    write(folder, prompts="prompts.txt", held_out="unseen.txt")
    assert prompts_to_compare(read_card(folder)) == ["a cat", "a dog"]
    assert prompts_to_tune(read_card(folder)) == (split(PROMPTS)[0], [*split(PROMPTS)[1], "a cat", "a dog"])


def test_options_win_over_a_card(folder: Path) -> None:
    card = read_card(folder)
    assert own_judges(card, JudgeOptions(), None) == (card.scorer, card.reference)
    # Statistics are of the card's scorer's features.
    assert own_judges(card, JudgeOptions(scorer="other"), None) == ("other", None)
    assert own_judges(card, JudgeOptions(network="inception"), None) == (card.scorer, None)
    assert own_judges(card, JudgeOptions(), "pictures") == (card.scorer, "pictures")
    pictures = card.model_copy(update={"reference": str(folder / "judge")})
    assert own_judges(pictures, JudgeOptions(scorer="other"), None) == ("other", str(folder / "judge"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scoer": "judge"}, "unknown key 'scoer'; did you mean 'scorer'?"),
        ({"full_steps": 0}, "full_steps is 0: "),
        ({"guidance_scale": "2"}, "guidance_scale is '2': "),
        (
            {"prompts": "../other/prompts.txt"},
            "prompts is '../other/prompts.txt': name something in the model's folder",
        ),
        ({"scorer": "/etc"}, "scorer is '/etc': name something in the model's folder"),
        ({"reference": "postdiff:../../x"}, "reference is 'postdiff:../../x': name something in the model's folder"),
        ({"held_out": "prompts.txt"}, "held_out needs prompts beside it"),
        ({"call": 3}, "call is 3: should be an object in braces"),
    ],
)
def test_a_card_that_cannot_be_used_is_one_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, **changes)
    with pytest.raises(InputError, match="postdiff.json: ") as refused:
        read_card(tmp_path)
    assert words in str(refused.value)
    (tmp_path / "model_index.json").write_text("{}")
    assert run(["tune", "--model", str(tmp_path)]) == 2
    assert words[:20] in capsys.readouterr().err


def test_what_a_card_names_must_be_there_unless_an_option_takes_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "judge")
    assert run(["tune", "--model", str(folder)]) == 2
    assert "judge: is missing, and the model's postdiff.json names it as scorer" in capsys.readouterr().err
    read_card(folder).check_files(["scorer", "reference"])


def test_a_scorer_may_be_on_the_hub_and_a_model_without_a_card_says_nothing(tmp_path: Path) -> None:
    assert read_card(tmp_path) == ModelCard()
    write(tmp_path, scorer="hf-hub:owner/clip")
    assert read_card(tmp_path).scorer == "hf-hub:owner/clip"


def test_shipped_models_are_known_by_their_folders(tmp_path: Path) -> None:
    for name in DEMO_NAMES:
        folder = shipped_folder(name)
        assert folder is not None and shipped_name(folder) == name
        read_card(folder).check_files()
        # Wherever it is copied to.
        shutil.copy(folder / "postdiff.json", tmp_path)
        assert read_card(tmp_path) == read_card(folder)
    assert shipped_folder("mine") is None and shipped_name(tmp_path / "emoji-unet") is None
