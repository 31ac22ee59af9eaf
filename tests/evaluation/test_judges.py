"""From options to judges: panels, what has no text, references by judge, and what gives no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from autotune.core.errors import InputError
from autotune.evaluation.judges import judges, panel_for
from autotune.evaluation.second_opinion import PAIRS, judges_of_last_round
from autotune.options import JudgeOptions
from autotune.quality import Reference
from autotune.quality.panel import DEFAULT_PANEL, JUDGES, Judge

SIZE = (8, 8)


class Means:
    """An image-text model that sees mean colours."""

    def image_features(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3)) / 255

    def text_features(self, prompts: Any) -> Tensor:
        return torch.ones(len(prompts), 3)


class Blind(Means):
    def image_features(self, images: Tensor) -> Tensor:
        return super().image_features(images) / 0


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (JudgeOptions(), dict(DEFAULT_PANEL)),
        (JudgeOptions(weight_clip=2.0), {"distance": 1, "alignment": 2}),
        (JudgeOptions(weight_fd=0.0), {"distance": 0, "alignment": 4}),
        (JudgeOptions(objective="fidelity"), {"fidelity": 1}),
        (JudgeOptions(judges=["error:3"]), {"error": 3}),
        (JudgeOptions(judges={"distance": 2.0}, error_ceiling=0.3), {"distance": 2, "error": 0}),
        (JudgeOptions(judges=[]), dict(DEFAULT_PANEL)),
    ],
)
def test_options_stand_for_panels(options: JudgeOptions, weights: dict[str, float]) -> None:
    panel = panel_for(options)
    assert panel.weights == weights and panel.ceiling == options.error_ceiling


def test_without_text_nobody_judges_by_it() -> None:
    assert panel_for(JudgeOptions(), text=False).weights == {
        name: weight for name, weight in DEFAULT_PANEL.items() if name != "alignment"
    }
    with pytest.raises(InputError, match="judge alignment matches pictures with prompts"):
        panel_for(JudgeOptions(judges=["distance", "alignment"]), text=False)
    with pytest.raises(InputError, match="the distance is all there is"):
        panel_for(JudgeOptions(weight_fd=0.0), text=False)


@pytest.mark.parametrize("role", ["scorer", "network"])
def test_features_that_are_no_numbers_are_refused_when_they_are_loaded(role: str) -> None:
    given: dict[str, Any] = {"scorer": Means(), role: Blind()}
    with pytest.raises(InputError, match=f"the {role} Blind gives features that are not finite"):
        judges(JudgeOptions(**given), size=SIZE)


def _pictures(folder: Path, side: int) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        noise = torch.randint(256, (side, side, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        ("nothing", False),
        ("pictures", True),
        ("smaller pictures", False),
        ("statistics", False),
        ("statistics of textures beside", True),
        ("features", False),
    ],
)
def test_textures_are_compared_with_real_ones_where_there_are_any(tmp_path: Path, reference: str, kept: bool) -> None:
    file = tmp_path / "real.safetensors"
    statistics = Reference.of(torch.rand(9, 3))
    statistics.save(file)
    if reference == "statistics of textures beside":
        statistics.save(tmp_path / "real-distance-textures.safetensors")
    given: Any = {
        "nothing": None,
        "pictures": _pictures(tmp_path / "large", 9),
        "smaller pictures": _pictures(tmp_path / "small", 7),
        "features": statistics,
    }.get(reference, file)
    chosen = judges(JudgeOptions(scorer=Means()), size=SIZE, reference=given)
    assert ("distance-textures" in chosen.panel.weights) == kept
    assert [judge.name for judge in chosen.further].count("distance-textures") == kept
    named = judges(JudgeOptions(scorer=Means(), judges=["distance-textures"]), size=SIZE, reference=given)
    assert named.panel.weights == {"distance-textures": 0.5}


def test_every_judge_of_distributions_has_a_reference_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(sources: object) -> Any:
        return lambda pictures: pictures.float().std((2, 3)) / 255

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(JUDGES, "spread", Judge("distribution", load, "spread"))
    chosen = judges(JudgeOptions(scorer=Means(), judges=["distance", "spread"]), size=SIZE)
    assert list(chosen.referring) == ["distance", "spread"]
    assert chosen.references(None, "", SIZE) == {}

    folder = _pictures(tmp_path / "pictures", 8)
    found = chosen.references(folder, "pictures@0123", SIZE)
    assert found["spread"].gaussian.mean.max() < 0.35 < found["distance"].gaussian.mean.min()

    # Of statistics only those that lie beside the file.
    found["distance"].save(tmp_path / "real.safetensors")
    assert list(chosen.references(tmp_path / "real.safetensors", "real@0123", SIZE)) == ["distance"]
    found["spread"].save(tmp_path / "real-spread.safetensors")
    again = chosen.references(tmp_path / "real.safetensors", "real@0123", SIZE)
    torch.testing.assert_close(again["spread"].gaussian.mean, found["spread"].gaussian.mean)
    given = Reference.of(torch.rand(9, 3))
    assert chosen.references(given, "", SIZE) == {"distance": given}


def test_other_statistics_beside_a_file_are_another_reference(tmp_path: Path) -> None:
    chosen = judges(JudgeOptions(scorer=Means(), judges=["distance", "distance-textures"]), size=SIZE)
    file, beside = tmp_path / "real.safetensors", tmp_path / "real-distance-textures.safetensors"
    Reference.of(torch.rand(9, 3)).save(file)
    assert chosen.beside_fingerprints(file) == ()
    Reference.of(torch.rand(9, 3)).save(beside)
    before = chosen.beside_fingerprints(file)
    assert [each.partition("@")[0] for each in before] == ["distance-textures real-distance-textures.safetensors"]
    Reference.of(torch.rand(9, 3)).save(beside)
    assert chosen.beside_fingerprints(file) != before


@pytest.mark.parametrize("given", ["nothing", "a folder", "statistics in hand"])
def test_nothing_is_beside_what_is_no_file(tmp_path: Path, given: str) -> None:
    reference: Any = {"nothing": None, "a folder": tmp_path}.get(given, Reference.of(torch.rand(9, 3)))
    assert judges(JudgeOptions(scorer=Means()), size=SIZE).beside_fingerprints(reference) == ()


@pytest.mark.parametrize("second", [None, "textures", "fidelity"])
def test_last_rounds_compare_more_pictures_whoever_is_asked_besides(second: str | None) -> None:
    searching = judges(JudgeOptions(scorer=Means(), judges=["distance", "error"]), size=SIZE)
    assert searching.error_pictures < PAIRS
    assert judges_of_last_round(searching, second, device="cpu", size=SIZE).error_pictures == PAIRS


def test_last_rounds_in_which_nobody_compares_pairs_compare_no_more() -> None:
    searching = judges(JudgeOptions(scorer=Means(), judges=["distance"]), size=SIZE)
    assert judges_of_last_round(searching, None, device="cpu", size=SIZE).error_pictures == searching.error_pictures


@pytest.mark.parametrize(("images", "pairs"), [(8, 8), (32, 8), (64, 16), (128, 32), (512, 32)])
def test_a_quarter_of_the_pictures_is_compared_with_exact_runs(images: int, pairs: int) -> None:
    options = JudgeOptions(scorer=Means(), judges=["distance", "error"])
    assert judges(options, size=SIZE, images=images).error_pictures == pairs
    asked = JudgeOptions(scorer=Means(), judges=["distance", "error"], error_pictures=11)
    assert judges(asked, size=SIZE, images=images).error_pictures == 11
