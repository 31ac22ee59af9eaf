"""Profiles of real pipelines: whole, plausible, and leaving the pipeline as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autotune.core.cache_folder import VARIABLE
from autotune.core.errors import InputError
from autotune.cost import Pricer, Profile, load_profile, measure_profile
from autotune.cost.profile import ProfileError
from autotune.cost.profile.local import local_profile
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied
from tests.support.builders import FAMILIES
from tests.support.tiny import tiny_sd

# One for each way to run guidance and each kind of denoiser and input; the others are more of the same.
TELLING = {"sd", "sdxl", "dit", "flux", "wan", "pixart-alpha"}
NOT_TEXT_TO_IMAGE = {name for name, family in FAMILIES.items() if family.strength is not None}


def profile_of(name: str, **options: Any) -> tuple[Any, Profile]:
    family = FAMILIES[name]
    pipe = family.make()
    calls = family.told(pipe, family.arguments())
    for key in ("num_inference_steps", "generator", "height", "width", "num_frames"):
        calls.pop(key, None)

    def call(batch: int) -> dict[str, Any]:
        return {key: value * batch if isinstance(value, list) else value for key, value in calls.items()}

    height, width = family.size
    profile = measure_profile(
        pipe,
        height=height,
        width=width,
        frames=family.frames,
        guided=family.guided,
        text_tokens=family.text_tokens,
        call=call,
        rounds=2,
        **({"scales": [] if "resolution" in family.refuses else [0.5]} | options),
    )
    return pipe, profile


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in TELLING else [pytest.mark.exhaustive])
        for name in FAMILIES
        if name not in NOT_TEXT_TO_IMAGE
    ],
)
def test_any_pipeline_can_be_profiled_and_policies_priced_with_it(name: str) -> None:
    family = FAMILIES[name]
    pipe, profile = profile_of(name)
    pricer = Pricer(
        pipe,
        *family.size,
        frames=family.frames,
        guided=family.guided,
        text_tokens=family.text_tokens,
        target=profile,
    )
    (times,) = profile.batches
    for call in times.calls:
        own = call.always_ms + sum(call.units_ms) + sum(call.blocks_ms)
        assert own == pytest.approx(call.forward_ms, rel=1e-3)
    stops = family.guided and "guidance" not in family.refuses
    together = family.guidance != "batched" or family.perturbed
    batched = {family.branches, 1} if stops else {family.branches if family.guided else 1}
    assert {call.branches for call in times.calls} == ({1} if together else batched)
    units = pricer.structure.units
    fields: dict[str, Any] = {
        "resolution": (ResolutionStage(scale=0.5, until_step=2),),
        "guidance": Guidance(stop_step=3) if family.guided else None,
        "cache": (CacheRule(units=(units[len(units) // 2].name,), compute_steps=(0, 2)),),
    }
    everything = Policy(steps=4, **{name: value for name, value in fields.items() if name not in family.refuses})
    some, full = (pricer.price(policy).latency_ms for policy in (everything, Policy(steps=4)))
    assert some is not None and full is not None
    assert 0 < some < full * 1.5


def test_it_is_as_if_nothing_had_been_measured() -> None:
    pipe = tiny_sd()
    call: dict[str, Any] = {"prompt": "a", "num_inference_steps": 2, "output_type": "np"}

    def picture() -> Any:
        return pipe(**call, generator=torch.Generator().manual_seed(0)).images

    before, own = picture(), set(vars(pipe))
    measure_profile(pipe, scales=[0.5], rounds=1)
    assert (picture() == before).all()
    assert set(vars(pipe)) == own
    assert not pipe.unet._forward_hooks and not pipe.unet.conv_in._forward_pre_hooks
    assert "decode" not in vars(pipe.vae) and "encode_prompt" not in vars(pipe)


def test_progress_reaches_its_end_and_never_goes_back() -> None:
    told: list[tuple[str, int, int]] = []
    measure_profile(tiny_sd(), scales=[0.5], batches=[1, 2], rounds=2, on_progress=lambda *state: told.append(state))
    done = [state[1] for state in told]
    assert done == sorted(done)
    assert done[0] == 0 and done[-1] == told[-1][2]
    assert {state[0] for state in told} == {"batch 1", "batch 2"}


def test_a_compiled_denoiser_is_profiled_and_left_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_sd()
    compiled: list[Any] = []

    def compile_(module: Any, **options: Any) -> None:
        compiled.append(options)
        module._compiled_call_impl = module._call_impl

    monkeypatch.setattr(torch.nn.Module, "compile", compile_)
    profile = measure_profile(pipe, scales=[0.5], rounds=1, compile_mode="max-autotune")
    assert profile.compile == "max-autotune" and compiled == [{"mode": "max-autotune"}]
    assert pipe.unet._compiled_call_impl is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": []}, "batches"),
        ({"batches": [0]}, "batches"),
        ({"batches": [2, 2]}, "different"),
        ({"scales": [0.0]}, "scales"),
        ({"scales": [0.3]}, "scale 0.3 does not fit"),
        ({"compile_mode": "fast"}, "compile mode 'fast' is unknown"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ProfileError, match=says):
        measure_profile(tiny_sd(), **options)


def test_a_pipeline_under_a_policy_is_refused() -> None:
    pipe = tiny_sd()
    with applied(pipe, Policy(steps=2)), pytest.raises(InputError, match="remove_policy"):
        measure_profile(pipe)


def test_this_machine_is_measured_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    measured: list[Any] = []

    def measure(pipe: Any, **options: Any) -> Profile:
        measured.append(options)
        return measure_profile(pipe, scales=[0.5], rounds=1, batches=options["batches"])

    monkeypatch.setattr("autotune.cost.profile.local.measure_profile", measure)
    pipe = tiny_sd()
    pricer = Pricer(pipe)
    first, path = local_profile(pipe, pricer)
    again, _ = local_profile(pipe, pricer)
    assert again == first == load_profile(path) and len(measured) == 1
    # Another batch is another profile, and a damaged one is measured again.
    local_profile(pipe, pricer, [2])
    path.write_text("{")
    local_profile(pipe, pricer)
    # As are other sizes.
    local_profile(pipe, pricer, scales=[0.25, 1])
    assert len(measured) == 4 and measured[-1]["scales"] == [0.25, 1]
    assert load_profile(path).model == pricer.subject
