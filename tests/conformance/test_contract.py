"""The contract that every pipeline family keeps under every technique.

A new family gets all of it with one builder in :mod:`tests.support.builders`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from autotune.cost import Pricer
from autotune.plan import Action
from autotune.policy import Guidance, Policy
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from studies.sampling import random_policies
from tests.support.builders import FAMILIES
from tests.support.techniques import RATE_AND_ALL, STEPS, every_step, names, structure_of, technique
from tests.support.watch import Watch

# One family for each way to run guidance and each kind of denoiser keeps every case; of the others the telling
# ones run by default, of those that share denoiser and call with another the one that holds everything.
FULL = {"sd", "pixart-alpha", "flux"}
VARIANTS = {
    *("sd-img2img", "sd-inpaint", "sd-inpaint-9", "sdxl-img2img", "sdxl-inpaint", "lcm", "lcm-pipeline", "ddim"),
    *("pixart-sigma", "pixart-alpha-1024", "flux-dev", "sd3-inpaint-33", "hunyuan-image-distilled"),
    *("sd-adapter", "sdxl-adapter", "instruct-pix2pix", "sd-pag", "sdxl-pag", "flux-fill", "flux-kontext"),
    "kandinsky5-img2img",
    "qwen-image-edit",
    *(f"{name}-ip-adapter" for name in ("sd", "sdxl")),
    *(f"{name}-controlnet" for name in ("sd", "sdxl", "sd3", "flux")),
    *(f"{name}-{task}" for name in ("sd3", "flux", "qwen-image", "z-image") for task in ("img2img", "inpaint")),
}
TELLING = {"reuse layers", "residual of a range", "half size, renoise", "everything", RATE_AND_ALL}


def _case(name: str, case: str) -> Any:
    more = case != "everything" if name in VARIANTS else name not in FULL and case not in TELLING
    return pytest.param((name, case), id=f"{name}-{case}", marks=[pytest.mark.exhaustive] if more else [])


CASES = [_case(name, case) for name in FAMILIES for case in names(FAMILIES[name])]


@pytest.fixture(autouse=True, scope="module")
def _countable_attention() -> Iterator[None]:
    """The fused attention kernel of the CPU is not counted; the plain one is, and computes the same."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@cache
def pipeline(name: str) -> Any:
    """One pipeline a family and test process: the contract leaves it as it was."""
    return FAMILIES[name].make()


@cache
def plain(name: str, batch: int = 1) -> torch.Tensor:
    """The plain pipeline's result, from a pipeline that no policy ever touched."""
    return run(name, FAMILIES[name].make(), steps=STEPS, batch=batch)


def run(name: str, pipe: Any, **options: Any) -> torch.Tensor:
    """A call under a policy names no steps of its own."""
    arguments = FAMILIES[name].arguments(**options)
    if "steps" not in options:
        del arguments["num_inference_steps"]
    return FAMILIES[name].run(pipe, **arguments)


def policy_of(name: str, case: str) -> Policy:
    policy = technique(case, FAMILIES[name], structure_of(FAMILIES[name], pipeline(name)))
    if policy is None:
        pytest.skip("the denoiser has no such units")
    return policy


@cache
def pricer(name: str, size: tuple[int, int] | None = None, guidance: bool = True) -> Pricer:
    family = FAMILIES[name]
    height, width = size or family.size
    return Pricer(
        pipeline(name),
        height,
        width,
        frames=family.frames,
        guided=family.guided and guidance,
        text_tokens=family.text_tokens,
        call=family.extra,
    )


def skipped_calls(name: str) -> int:
    return STEPS - FAMILIES[name].executed_steps(STEPS)


@dataclass
class Record:
    """One technique on one family: a watched call of two pictures and what came after it."""

    name: str
    case: str
    policy: Policy
    output: torch.Tensor
    watch: Watch
    again: torch.Tensor
    after_removal: torch.Tensor
    left: int


@pytest.fixture(scope="module", params=CASES)
def record(request: pytest.FixtureRequest) -> Record:
    name, case = request.param
    family, pipe, policy = FAMILIES[name], pipeline(name), policy_of(name, case)
    denoiser = getattr(pipe, family.denoiser)
    with Watch(pipe, denoiser, structure_of(family, pipe)) as watch, applied(pipe, policy):
        watch.follow_session()
        output = run(name, pipe, batch=2)
        session = session_of(pipe)
        assert session is not None
        left = session.kept_bytes()
    with applied(pipe, policy):
        # In between, everything that may differ between calls.
        other: dict[str, Any] = {"guidance": False, "seed": 5}
        if family.other_size is not None:
            other |= {"height": family.other_size[0], "width": family.other_size[1]}
        if family.strength is not None:
            other["strength"] = 0.4
        run(name, pipe, **other)
        again = run(name, pipe, batch=2)
    return Record(name, case, policy, output, watch, again, run(name, pipe, steps=STEPS, batch=2), left)


def test_it_makes_finite_pictures_of_its_own(record: Record) -> None:
    assert torch.isfinite(record.output).all()
    assert torch.equal(record.output, plain(record.name, 2)) == (record.case == "nothing")


def test_a_second_call_is_as_if_it_were_the_first(record: Record) -> None:
    """Same generator, same output, whatever batch, size, guidance and strength the call before had."""
    assert torch.equal(record.again, record.output)


def test_removed_it_leaves_the_plain_pipeline(record: Record) -> None:
    assert torch.equal(record.after_removal, plain(record.name, 2))


def test_predicted_flops_are_the_counted_ones(record: Record) -> None:
    predicted = pricer(record.name).price(record.policy, 2, skipped_calls=skipped_calls(record.name))
    assert predicted.flops == record.watch.flops


def test_only_what_the_plan_computes_is_computed(record: Record) -> None:
    plan = pricer(record.name).plan(record.policy, skipped_calls=skipped_calls(record.name))
    units = plan.structure.units
    assert record.watch.executed == [
        {unit.name for unit, action in zip(units, step.actions, strict=True) if action is Action.COMPUTE}
        for step in plan.steps
    ]


def test_kept_features_take_the_predicted_bytes(record: Record) -> None:
    predicted = pricer(record.name).price(record.policy, 2, skipped_calls=skipped_calls(record.name))
    assert max(record.watch.kept) == predicted.cache_bytes
    assert record.left == 0


each_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in VARIANTS else []) for name in FAMILIES]
)


@each_family
def test_latents_below_full_size_take_the_predicted_bytes(name: str) -> None:
    pipe, policy = pipeline(name), policy_of(name, "two stages")
    held: list[int] = []

    def look(*_: Any) -> None:
        session = session_of(pipe)
        low = None if session is None else session.call.low
        if low is not None:
            held.append(sum(tensor.numel() * tensor.element_size() for tensor in (low._initial, low.latents)))

    with applied(pipe, policy):
        handle = getattr(pipe, FAMILIES[name].denoiser).register_forward_hook(look)
        try:
            run(name, pipe, batch=2)
        finally:
            handle.remove()
    predicted = pricer(name).price(policy, 2, skipped_calls=skipped_calls(name))
    assert max(held) == predicted.latent_bytes


@each_family
def test_computing_every_step_changes_nothing(name: str) -> None:
    pipe = pipeline(name)
    policy = every_step(structure_of(FAMILIES[name], pipe))
    if "guidance" not in FAMILIES[name].refuses:
        whole = Guidance(stop_step=STEPS, compute_steps=tuple(range(STEPS)))
        policy = policy.model_copy(update={"guidance": whole})
    with applied(pipe, policy):
        assert torch.equal(run(name, pipe), plain(name))


class Fault(Exception):
    pass


@each_family
def test_an_exception_in_the_denoiser_leaves_a_clean_pipeline(name: str) -> None:
    pipe, policy = pipeline(name), policy_of(name, "everything")
    structure = structure_of(FAMILIES[name], pipe)
    module = dict(getattr(pipe, FAMILIES[name].denoiser).named_modules())[structure.units[0].name]
    calls = 0

    def fail_at_second_call(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Fault

    with applied(pipe, policy):
        expected = run(name, pipe)
        handle = module.register_forward_pre_hook(fail_at_second_call)
        try:
            with pytest.raises(Fault):
                run(name, pipe)
        finally:
            handle.remove()
        session = session_of(pipe)
        assert session is not None and session.plan is None and session.kept_bytes() == 0
        assert torch.equal(run(name, pipe), expected)


@each_family
def test_two_pipelines_do_not_touch_each_other(name: str) -> None:
    one, two = pipeline(name), FAMILIES[name].make()
    everything = policy_of(name, "everything")
    with applied(two, everything):
        expected = run(name, two)
        with applied(one, policy_of(name, "reuse nearly all")):
            run(name, one)
            assert torch.equal(run(name, two), expected)
    assert torch.equal(run(name, two, steps=STEPS), plain(name))


@each_family
@pytest.mark.parametrize("change", ["size", "guidance"])
def test_other_sizes_and_no_guidance_are_priced_exactly(name: str, change: str) -> None:
    family, pipe = FAMILIES[name], pipeline(name)
    rated = change == "guidance" and family.guided and "guidance" not in family.refuses
    policy = policy_of(name, RATE_AND_ALL if rated else "everything")
    if change == "size" and family.other_size is None:
        pytest.skip("the family has one size")
    size = family.other_size if change == "size" else None
    options: dict[str, Any] = {"guidance": change != "guidance"}
    if size is not None:
        options |= {"height": size[0], "width": size[1]}
    with Watch(pipe, getattr(pipe, family.denoiser), structure_of(family, pipe)) as watch, applied(pipe, policy):
        watch.follow_session()
        run(name, pipe, **options)
    predicted = pricer(name, size, guidance=change != "guidance").price(policy, skipped_calls=skipped_calls(name))
    assert (watch.flops, max(watch.kept)) == (predicted.flops, predicted.cache_bytes)


@each_family
@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_random_policies_are_priced_exactly(name: str, share: int) -> None:
    """Twenty that combine every lever; by default a third of them, not the same for every family."""
    family, pipe = FAMILIES[name], pipeline(name)
    structure = structure_of(family, pipe)
    # Some schedulers make no fewer steps than their order.
    policies = random_policies(pricer(name), range(3, STEPS + 1))
    for policy in islice(policies, list(FAMILIES).index(name) % share, 20, share):
        with Watch(pipe, getattr(pipe, family.denoiser), structure) as watch, applied(pipe, policy):
            watch.follow_session()
            options: dict[str, Any] = {} if family.strength is None else {"strength": 1.0}
            run(name, pipe, **options)
        predicted = pricer(name).price(policy)
        assert (watch.flops, max(watch.kept)) == (predicted.flops, predicted.cache_bytes), policy.id
