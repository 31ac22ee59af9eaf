"""What pipelines take of the inputs they are given, on a tiny one of each kind."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from PIL import Image

from autotune.core.errors import InputError
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.inputs import read_rows
from tests.support.builders import FAMILIES

PICTURE = Image.new("RGB", (16, 16))


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


def take(name: str, *rows: dict[str, Any]) -> Any:
    return accepted(pipeline(name), read_rows(rows))


REFUSED = {
    "an unknown key": (
        "sd-img2img",
        [{"prompt": "a", "image": PICTURE, "strenght": 0.5}],
        "StableDiffusionImg2ImgPipeline takes no 'strenght'; did you mean 'strength'?",
    ),
    "the argument of several": ("dit", [{"class_labels": [1]}], "takes no 'class_labels'; did you mean 'class_label'?"),
    "prompts for nobody": ("ddpm", [{"prompt": "a"}], "DDPMPipeline takes no 'prompt'"),
    "what the tuner sets": ("sd", [{"prompt": "a", "generator": 3}], "'generator' is the tuner's to set; leave it out"),
    "what options set": ("sd", [{"prompt": "a", "height": 64}], "'height' is the tuner's to set; give height apart"),
    "no image": ("sd-img2img", [{"prompt": "a"}], "StableDiffusionImg2ImgPipeline needs 'image'"),
    "no mask": ("sd-inpaint", [{"prompt": "a", "image": PICTURE}], "StableDiffusionInpaintPipeline needs 'mask_image'"),
    "no prompt": ("sd", [{"negative_prompt": "a"}], "StableDiffusionPipeline needs 'prompt'"),
    "a class too many": ("dit", [{"class_label": 1000}], "1000 is none of DiTPipeline's; give one from 0 to 999"),
    "a class below all": ("dit", [{"class_label": -1}], "class_label -1 is none"),
    "two strengths": (
        "sd-img2img",
        [{"prompt": p, "image": PICTURE, "strength": s} for p, s in (("a", 0.5), ("b", 0.6))],
        "strength is 0.5 in one and 0.6 in another, and a call takes one for all its pictures",
    ),
    "no strength": ("sd-img2img", [{"prompt": "a", "image": PICTURE, "strength": 0}], "strength is 0; give a number"),
    "too much": ("sd-img2img", [{"prompt": "a", "image": PICTURE, "strength": 2}], "strength is 2; give a number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_pipeline_does_not_take_is_refused_in_one_sentence(case: str) -> None:
    name, rows, words = REFUSED[case]
    with pytest.raises(InputError) as refused:
        take(name, *rows)  # type: ignore[misc]
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_what_a_call_takes_once_is_taken_out_of_the_rows() -> None:
    given = [{"prompt": p, "image": PICTURE, "strength": 0.5, "guidance_scale": 3} for p in "ab"]
    taken = take("sd-img2img", *given)
    assert taken.call == {"strength": 0.5, "guidance_scale": 3}
    assert [sorted(row.arguments) for row in taken.rows] == [["image", "prompt"]] * 2


def test_a_class_conditional_pipeline_gets_all_its_classes() -> None:
    taken = accepted(pipeline("dit"), None)
    assert [row.arguments["class_label"] for row in taken.rows] == list(range(1000)) and taken.noun == "classes"


def test_classes_are_called_as_the_model_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**pipeline("dit").config, "id2label": {"207": "golden retriever"}}
    monkeypatch.setattr(type(pipeline("dit")), "config", config)
    assert [row.label for row in take("dit", {"class_label": 207}, {"class_label": 3}).rows] == [
        "class 207: golden retriever",
        "class 3",
    ]


def test_an_unconditional_pipeline_gets_seeds_and_what_its_calls_take() -> None:
    assert accepted(pipeline("ddim"), None).rows == ()
    taken = take("ddim", {"eta": 0.5})
    assert (taken.rows, taken.call, taken.noun) == ((), {"eta": 0.5}, "seeds")
