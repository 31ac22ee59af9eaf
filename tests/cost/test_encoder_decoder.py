"""What is predicted of text encoders and decoder is what a counter sees in a real call, as integers."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from autotune.cost.encoder_decoder import EncoderDecoderCost, encoder_decoder_cost
from autotune.cost.weightless import pipeline_from_configs
from autotune.cost.work import Work
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.runtime import applied, full_policy
from tests.support.builders import FAMILIES, PROMPTS, TinyFamily
from tests.support.watch import FlopCount, traces

GUIDANCE = [(name, family.guided) for name, family in FAMILIES.items()]
# One of each way in which guidance is asked for.
GUIDANCE += [(name, False) for name in ("sd", "sdxl", "flux", "z-image")]
# Of these the length of a prompt decides how long the text is that the encoder gets.
UNPADDED = ["qwen-image"]


@functools.cache
def tiny(family: str) -> Any:
    return FAMILIES[family].make()


def predicted(family: TinyFamily, pipe: Any = None, guided: bool = False, **options: Any) -> EncoderDecoderCost:
    pipe = tiny(family.name) if pipe is None else pipe
    options = {"prompt": PROMPTS[0], "negative_prompt": family.negative if guided else None} | options
    return encoder_decoder_cost(pipe, *family.size, frames=family.frames, guided=guided, call=family.extra, **options)


def counted(family: TinyFamily, guided: bool = False, **changes: Any) -> dict[str, int]:
    """FLOPs of text encoders and decoder, by name, in a real call for one picture."""
    pipe = family.make()
    owners = {name: (part, "forward") for name, part in pipe.components.items() if "text_encoder" in name}
    owners |= {"vae": (pipe.vae, "decode")} if hasattr(pipe, "vae") else {}
    counts = {name: count_calls(*owner) for name, owner in owners.items()}
    # The fused attention kernel of the CPU is not counted; the plain one is, and computes the same.
    with sdpa_kernel(SDPBackend.MATH):
        arguments = family.arguments(steps=2, guidance=guided, output_type="np")
        family.run(pipe, **(arguments | {name: value for name, value in changes.items() if value is not None}))
    # What the call does not reach is not counted: Hunyuan-Image's second encoder, of a prompt that quotes nothing.
    return {name: count.total for name, count in counts.items() if count.total}


def count_calls(owner: Any, method: str) -> FlopCount:
    original, count = getattr(owner, method), FlopCount()

    @functools.wraps(original)
    def counting(*args: Any, **kwargs: Any) -> Any:
        with count:
            return original(*args, **kwargs)

    setattr(owner, method, counting)
    return count


def flops(around: EncoderDecoderCost) -> dict[str, int]:
    decoder = {} if around.vae_decoder is None else {"vae": around.vae_decoder.flops}
    return {name: work.flops for name, work in around.text_encoders.items()} | decoder


# As counted


@pytest.mark.parametrize(("name", "guided"), GUIDANCE)
def test_predicted_equals_counted(name: str, guided: bool) -> None:
    family = FAMILIES[name]
    assert flops(predicted(family, guided=guided)) == counted(family, guided)


def test_predicted_equals_counted_at_another_size() -> None:
    family = FAMILIES["sd"]
    around = encoder_decoder_cost(tiny("sd"), 32, 64, guided=False)
    assert flops(around) == counted(family, height=32, width=64)


@pytest.mark.parametrize("name", UNPADDED)
def test_an_unpadded_prompt_is_the_longest_by_default(name: str) -> None:
    family = FAMILIES[name]
    longest = predicted(family, prompt=None).text_encoders["text_encoder"].flops
    assert longest == counted(family, prompt=["red " * 3000])["text_encoder"]


@pytest.mark.parametrize("name", ["sd", "sd3", "sana", "lumina2", "z-image"])
def test_of_other_pipelines_the_prompt_does_not_matter(name: str) -> None:
    family = FAMILIES[name]
    assert predicted(family, prompt=None) == predicted(family)


def test_a_negative_prompt_that_is_not_given_is_not_encoded_by_sdxl() -> None:
    family = FAMILIES["sdxl"]
    assert predicted(family, guided=True, negative_prompt=None) == predicted(family)


def test_a_negative_prompt_is_another_pass() -> None:
    family = FAMILIES["sdxl"]
    twice = predicted(family, guided=True, negative_prompt="ugly").text_encoders
    assert twice == {name: work * 2 for name, work in predicted(family).text_encoders.items()}


@pytest.mark.parametrize("name", ["flux", "qwen-image"])
def test_where_guidance_needs_a_negative_prompt_it_is_as_long_as_the_prompt(name: str) -> None:
    family = FAMILIES[name]
    twice = predicted(family, guided=True, negative_prompt=None).text_encoders
    assert twice == {name: work * 2 for name, work in predicted(family).text_encoders.items()}


def test_guidance_is_the_pipelines_own_by_default() -> None:
    pipe = tiny("sd")
    assert encoder_decoder_cost(pipe, 32, 32) == encoder_decoder_cost(pipe, 32, 32, guided=True)


def test_arguments_are_what_a_shipped_model_recommends_by_default() -> None:
    pipe = demo_pipeline("emoji-dit")
    assert encoder_decoder_cost(pipe) == encoder_decoder_cost(pipe, 64, 64, call=demo_assets("emoji-dit").call)


def test_the_papers_convention_leaves_attention_products_out() -> None:
    work = predicted(FAMILIES["sd"]).text_encoders["text_encoder"]
    # Two layers of four square projections and a feed-forward of twice the width, 16 tokens of 16.
    assert work.macs_conv_linear == 2 * (4 + 2 * 2) * 16 * 16 * 16


def test_the_total_is_of_everything_counted() -> None:
    around = EncoderDecoderCost({"text_encoder": Work(1, 2), "text_encoder_2": Work(10, 20)}, Work(100, 200))
    assert around.total == Work(111, 222)


def test_a_pipeline_without_text_and_decoder_costs_nothing_besides() -> None:
    assert encoder_decoder_cost(tiny("ddpm")) == EncoderDecoderCost()


# Whatever the pipeline is like


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_it_needs_no_weights(device: str) -> None:
    folder = demo_assets().folder
    assert encoder_decoder_cost(pipeline_from_configs(folder, device=device)) == encoder_decoder_cost(demo_pipeline())


def test_a_policy_changes_nothing() -> None:
    pipe = FAMILIES["sd"].make()
    plain = encoder_decoder_cost(pipe)
    with applied(pipe, full_policy(pipe, 2)):
        assert encoder_decoder_cost(pipe) == plain


@pytest.mark.parametrize("name", ["sd", "flux", "wan"])
def test_the_pipeline_stays_as_it_was(name: str) -> None:
    pipe = FAMILIES[name].make()
    before = traces(pipe), dict(vars(pipe)), dict(pipe.config), type(pipe)
    predicted(FAMILIES[name], pipe)
    assert (traces(pipe), dict(vars(pipe)), dict(pipe.config), type(pipe)) == before


def test_a_compiled_encoder_is_counted_as_itself() -> None:
    pipe = FAMILIES["sd"].make()
    # As torch.compile wraps it, which takes two seconds to say so.
    wrapper = nn.Module()
    wrapper._orig_mod = pipe.text_encoder
    vars(pipe)["text_encoder"] = wrapper
    assert predicted(FAMILIES["sd"], pipe) == predicted(FAMILIES["sd"])


def test_a_missing_encoder_is_left_out() -> None:
    pipe = FAMILIES["sd3"].make()
    pipe.text_encoder_3 = None
    assert set(predicted(FAMILIES["sd3"], pipe).text_encoders) == {"text_encoder", "text_encoder_2"}


# What cannot be counted is said


def not_counted(around: EncoderDecoderCost) -> dict[str, str]:
    return dict(around.not_counted)


def test_an_encoder_that_is_no_model_of_a_library_is_reported() -> None:
    pipe = FAMILIES["sd"].make()
    vars(pipe)["text_encoder"] = nn.Linear(1, 1)
    around = encoder_decoder_cost(pipe)
    assert around.text_encoders == {} and "cannot be followed" in not_counted(around)["text_encoder"]


def test_encoders_without_a_tokenizer_are_reported() -> None:
    pipe = FAMILIES["sdxl"].make()
    vars(pipe)["tokenizer_2"] = None
    around = encoder_decoder_cost(pipe)
    assert around.text_encoders == {} and set(not_counted(around)) == {"text_encoder", "text_encoder_2"}


def test_an_encoder_that_no_call_reaches_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = FAMILIES["sd"].make()
    components = pipe.components | {"text_encoder_2": pipe.text_encoder}
    monkeypatch.setattr(type(pipe), "components", components)
    assert "does not reach" in not_counted(encoder_decoder_cost(pipe))["text_encoder_2"]


def test_a_pipeline_that_encodes_no_prompt_before_its_steps_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = FAMILIES["sd"].make()
    monkeypatch.setattr(type(pipe), "__call__", lambda self, prompt, guidance_scale: None)
    assert "sets its timesteps before" in not_counted(encoder_decoder_cost(pipe))["text_encoder"]


def test_an_autoencoder_that_is_no_model_of_a_library_is_reported() -> None:
    pipe = FAMILIES["sd"].make()
    vars(pipe)["vae"] = nn.Linear(1, 1)
    around = encoder_decoder_cost(pipe)
    assert around.vae_decoder is None and "Linear cannot be counted" in not_counted(around)["vae"]


def test_a_safety_checker_is_reported() -> None:
    pipe = FAMILIES["sd"].make()
    vars(pipe)["safety_checker"] = nn.Linear(1, 1)
    assert "safety_checker" in not_counted(encoder_decoder_cost(pipe))


@pytest.mark.parametrize("name", ["sd-img2img", "sdxl-inpaint"])
def test_the_encoding_of_a_given_picture_is_reported(name: str) -> None:
    assert "vae encoder" in not_counted(predicted(FAMILIES[name]))


def test_nothing_is_reported_where_everything_is_counted() -> None:
    assert not_counted(predicted(FAMILIES["sd"])) == {}
