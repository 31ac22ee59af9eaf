"""Panels of judges: names, weights, what is loaded, and what is refused before any picture is made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import Weights
from autotune.quality.jury import load_judges, suited
from autotune.quality.panel import DEFAULT_PANEL, JUDGES, Judge, Panel, Sources, parse_judges

SIZE = (16, 16)


class Pixels:
    """A network of 8 pixels a side."""

    side = 8

    def image_features(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


SOURCES = Sources(None, Pixels())


def test_texts_are_names_with_weights() -> None:
    assert parse_judges(["distance", "error:0.5", " alignment "]) == {"distance": 0.5, "error": 0.5, "alignment": 6}
    assert parse_judges({"error": 2}) == {"error": 2.0}
    panel = Panel(parse_judges(["distance:0.25", "error"]))
    assert parse_judges(panel.texts) == panel.weights


@pytest.mark.parametrize(
    ("judges", "sentence"),
    [
        (["distence"], "no judge called 'distence'; did you mean 'distance'"),
        (["error:much"], "'error:much' is no NAME or NAME:WEIGHT"),
        (["error", "error:2"], "'error' is named twice"),
        (["error:-1"], "weight of judge error is -1"),
        (["error:nan"], "weight of judge error is nan"),
        (["error:0", "distance:0"], "no judge has a weight above 0"),
    ],
)
def test_what_is_no_panel_is_refused_in_a_sentence(judges: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Panel(parse_judges(judges))


def test_a_ceiling_needs_a_judge_of_pairs() -> None:
    assert Panel({"distance": 1, "error": 0}, 0.2).ceiling == 0.2
    with pytest.raises(InputError, match="ceiling of 0.2 needs"):
        Panel({"distance": 1, "fidelity": 1}, 0.2)


def test_the_panels_of_earlier_releases_are_known() -> None:
    assert Weights(1, 4).panel.classic == (1, 4, 0)
    assert Panel({"fidelity": 1}).classic == (0, 0, 1)
    assert Panel({"distance": 1, "error": 0}).classic is None
    assert set(DEFAULT_PANEL) <= set(JUDGES)


def test_the_names_are_read_without_torch() -> None:
    code = "import sys; import autotune.quality.panel, autotune.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_crops_are_for_pictures_that_are_larger_than_what_the_network_sees() -> None:
    panel = Panel({"distance": 1, "distance-crops": 1})
    assert suited(panel, SOURCES, (16, 16), asked=True) is panel
    assert list(suited(panel, SOURCES, (8, 8), asked=False).weights) == ["distance"]
    with pytest.raises(InputError, match="pictures of 8 x 8 pixels are no larger"):
        suited(panel, SOURCES, (8, 8), asked=True)
    # One that does not say what it sees.
    assert list(suited(panel, Sources(None, object()), (512, 512), asked=False).weights) == ["distance"]


def loading(monkeypatch: pytest.MonkeyPatch, kind: Any, call: Any) -> Any:
    monkeypatch.setitem(JUDGES, "fake", Judge(kind, lambda sources: call, "a fake"))
    return load_judges(Panel({"fake": 1}), SOURCES, SIZE)


@pytest.mark.parametrize(
    ("kind", "call", "sentence"),
    [
        (
            "paired",
            lambda a, b: torch.full((len(a),), torch.nan),
            "judge fake gives values that are not finite, 2 of 2",
        ),
        ("paired", lambda a, b: torch.zeros(3), r"judge fake gives \(3,\) of 2 pictures"),
        ("distribution", lambda a: torch.full((len(a), 4), torch.inf), "judge fake gives values that are not finite"),
        ("distribution", lambda a: torch.zeros(len(a)), r"judge fake gives \(2,\) of 2 pictures"),
        ("alignment", lambda a, texts: torch.full((len(texts),), torch.nan), "not finite"),
    ],
)
def test_a_judge_that_gives_no_numbers_is_refused_when_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, kind: str, call: Any, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        loading(monkeypatch, kind, call)


def test_missing_weights_are_the_judges_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(sources: Sources) -> Any:
        raise InputError("the weights of fake cannot be had; put them into FOLDER")

    monkeypatch.setitem(JUDGES, "fake", Judge("paired", load, "a fake"))
    with pytest.raises(InputError, match="put them into FOLDER"):
        load_judges(Panel({"fake": 1}), SOURCES, SIZE)


def test_a_judge_is_asked_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    (judge,) = loading(monkeypatch, "distribution", lambda pictures: torch.ones(len(pictures), 3, 5))
    assert judge.features(torch.zeros(4, 3, *SIZE, dtype=torch.uint8)).shape == (4, 3, 5)
    (judge,) = loading(monkeypatch, "paired", lambda a, b: (a != b).float().mean((1, 2, 3)))
    same = torch.zeros(4, 3, *SIZE, dtype=torch.uint8)
    assert judge.errors(same, same).tolist() == [0.0] * 4
