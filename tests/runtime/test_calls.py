"""Everything a pipeline's call may be asked for, under a policy: callbacks, interruption, shapes, precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.runtime import applied, apply_policy
from autotune.runtime.apply import session_of
from tests.support.builders import FAMILIES, PROMPTS
from tests.support.ecosystem import (
    CASES,
    NAMES,
    denoiser_of,
    expected,
    make,
    plain,
    policy_of,
    run,
    takes,
)
from tests.support.techniques import STEPS

each_pipeline = pytest.mark.parametrize("name", NAMES)
with_callbacks = pytest.mark.parametrize("name", [name for name in NAMES if name != "pixart-alpha"])


def called_back(pipe: Any, callback: Any) -> dict[str, Any]:
    """Arguments for ``callback(index, latents)`` after every step."""
    if not takes(pipe, "callback_on_step_end"):
        return {"callback": lambda index, timestep, latents: callback(index, latents)}

    def at_step_end(pipe: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        callback(index, tensors["latents"])
        return {}

    return {"callback_on_step_end": at_step_end}


@each_pipeline
def test_callbacks_are_called_after_every_step_with_latents_of_full_size(name: str) -> None:
    pipe = make(name)
    seen: list[tuple[int, Tensor]] = []
    arguments = called_back(pipe, lambda index, latents: seen.append((index, latents.clone())))
    apply_policy(pipe, policy_of(name, pipe))
    result = run(name, pipe, **arguments)
    assert torch.equal(result, expected(name))
    assert [index for index, _ in seen] == list(range(STEPS))
    for _, latents in seen:
        assert latents.shape == result.shape and latents.dtype == result.dtype
        assert latents.isfinite().all() and latents.std() > 0.1
    assert torch.equal(seen[-1][1], result)


class Fault(Exception):
    pass


@each_pipeline
@pytest.mark.parametrize("step", [0, 2, STEPS - 1])
def test_a_callback_that_raises_leaves_the_next_call_clean(name: str, step: int) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))

    def fail(index: int, latents: Tensor) -> None:
        if index == step:
            raise Fault

    with pytest.raises(Fault):
        run(name, pipe, seed=3, **called_back(pipe, fail))
    assert torch.equal(run(name, pipe), expected(name))


@with_callbacks
@pytest.mark.parametrize("step", [0, 2])
def test_an_interrupted_call_returns_a_picture_and_leaves_nothing_behind(name: str, step: int) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))

    def stop(index: int, latents: Tensor) -> None:
        pipe._interrupt = index == step

    result = run(name, pipe, **called_back(pipe, stop))
    assert result.shape == expected(name).shape and result.isfinite().all()
    session = session_of(pipe)
    assert session is not None and session.plan is None and session.kept_bytes() == 0
    assert torch.equal(run(name, pipe), expected(name))


@with_callbacks
def test_guidance_changed_by_a_callback(name: str) -> None:
    """The plan's branches stay; the pipeline combines them with the new scale."""
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe, "reuse nearly all"))

    def weaker(pipe: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if name == "sd":
            pipe._guidance_scale = 2.0
        return {"latents": tensors["latents"] * 0.5} if index == 1 else {}

    result = run(name, pipe, callback_on_step_end=weaker)
    assert result.isfinite().all() and not torch.equal(result, expected(name, "reuse nearly all"))
    assert torch.equal(run(name, pipe), expected(name, "reuse nearly all"))


@each_pipeline
@pytest.mark.parametrize("case", CASES)
def test_several_pictures_of_a_prompt_are_as_if_it_were_given_as_often(name: str, case: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe, case))
    both = run(name, pipe, num_images_per_prompt=2)
    assert both.shape[0] == 2 and not torch.equal(both[0], both[1])
    options: dict[str, Any] = {"prompt": [PROMPTS[0]] * 2}
    negative = FAMILIES[name].negative
    if negative is not None:
        options["negative_prompt"] = [negative] * 2
    torch.testing.assert_close(both, run(name, pipe, **options))


@each_pipeline
@pytest.mark.parametrize("case", CASES)
def test_batch_size_and_guidance_may_change_from_call_to_call(name: str, case: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe, case))
    height, width = FAMILIES[name].other_size or FAMILIES[name].size
    changes: list[dict[str, Any]] = [{}, {"batch": 2}, {"height": height, "width": width}, {"guidance": False}]
    once = [run(name, pipe, **change) for change in changes]
    for change, result in reversed(list(zip(changes, once, strict=True))):
        assert torch.equal(run(name, pipe, **change), result)
    assert torch.equal(once[0], expected(name, case))


@each_pipeline
def test_every_kind_of_output(name: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    family = FAMILIES[name]
    arguments = family.arguments()
    del arguments["num_inference_steps"]
    shapes = {}
    for kind in ("pil", "np", "pt"):
        shapes[kind] = pipe(**arguments | {"output_type": kind, "return_dict": False})[0]
    assert shapes["pil"][0].size == family.size
    assert shapes["np"].shape == (1, *family.size, 3)
    assert shapes["pt"].shape == (1, 3, *family.size)


@each_pipeline
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_half_the_bytes_and_the_plan(name: str, dtype: torch.dtype) -> None:
    kept: dict[torch.dtype, list[int]] = {}
    computed: dict[torch.dtype, int] = {}
    for precision in (torch.float32, dtype):
        pipe = make(name).to(precision)
        policy = policy_of(name, pipe, "second-order forecast")
        last = denoiser_of(name, pipe).get_submodule(policy.cache[0].units[0])
        inner = next(module for module in last.modules() if not list(module.children()))
        calls: list[None] = []
        inner.register_forward_hook(lambda *_, calls=calls: calls.append(None))
        with applied(pipe, policy):
            session = session_of(pipe)
            assert session is not None
            kept[precision] = bytes_after_every_call(session)
            result = run(name, pipe)
        computed[precision] = len(calls)
        assert result.dtype is precision and result.isfinite().all()
    assert max(kept[torch.float32]) > 0
    assert [2 * count for count in kept[dtype]] == kept[torch.float32]
    assert computed[dtype] == computed[torch.float32]


def bytes_after_every_call(session: Any) -> list[int]:
    kept: list[int] = []
    leave = session.leave

    def leaving(*args: Any) -> None:
        leave(*args)
        kept.append(session.kept_bytes())

    session.leave = leaving
    return kept


# A forecast multiplies rounding errors by the sum of its weights' magnitudes: 3 + 8 + 6 in the last step; guidance
# those of the last difference by its scale.
@each_pipeline
@pytest.mark.parametrize("case, factor", list(zip(CASES, (3, 3, 17, 6), strict=True)))
def test_half_precision_is_as_close_to_single_as_the_plain_pipeline(name: str, case: str, factor: int) -> None:
    pipe = make(name).to(torch.bfloat16)
    error = (run(name, pipe).float() - plain(name)).std()
    with applied(pipe, policy_of(name, pipe, case)):
        under = (run(name, pipe).float() - expected(name, case)).std()
    assert under < factor * error


@each_pipeline
def test_the_pipeline_may_change_precision_under_a_policy(name: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    run(name, pipe)
    pipe.to(torch.bfloat16)
    other = make(name).to(torch.bfloat16)
    with applied(other, policy_of(name, other)):
        assert torch.equal(run(name, pipe), run(name, other))
    pipe.to("cpu", torch.float32)
    assert run(name, pipe).dtype is torch.float32
