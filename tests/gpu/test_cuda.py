"""What holds on the CPU, on a GPU: ``python -m pytest tests/gpu -n 8`` where there is one; skipped elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune import demo_pipeline, load_policy, price, tune
from autotune.cost import measure_profile
from autotune.models.shipped import demo_assets
from autotune.policy import Policy
from autotune.runtime import applied, apply_policy, remove_policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from studies.shipped import BATCH
from tests.conformance.test_contract import TELLING, VARIANTS
from tests.conformance.test_prefix_reuse import ALSO, later_changes, plainly, sharing
from tests.support.builders import FAMILIES
from tests.support.ecosystem import denoiser_of, policy_of, run
from tests.support.techniques import STEPS, every_step, structure_of, technique

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# The generic pipeline of the tests stays on the CPU.
NAMES = [name for name in FAMILIES if name not in VARIANTS and name != "generic"]
# Of these random weights: a last bit changed in the first layer ends as a fifth of the picture.
CHAOTIC = {"sdxl"}
TOLERANCE = 1e-3


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Convolutions on a GPU are in TF32 by default: three digits, which five steps of random weights use up."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def make(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return FAMILIES[name].make().to("cuda", dtype)


@cache
def shared(name: str) -> Any:
    """One pipeline a family and test process, for tests that leave it as it was."""
    return make(name)


def under(name: str, pipe: Any, policy: Policy, **options: Any) -> Tensor:
    with applied(pipe, policy):
        return run(name, pipe, **options)


def apart(one: Tensor, other: Tensor) -> float:
    """The difference relative to ``other``, in the Euclidean norm."""
    one, other = one.cpu().double(), other.cpu().double()
    return float((one - other).norm() / other.norm())


CASES = [(name, case) for name in NAMES for case in sorted(TELLING | ALSO)]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_policy_does_what_it_does_on_the_cpu(name: str, case: str) -> None:
    family, pipe = FAMILIES[name], shared(name)
    if case == "guidance stops" and not family.guided:
        pytest.skip("the family has no guidance")
    policy = technique(case, family, structure_of(family, pipe))
    if policy is None:
        pytest.skip("the denoiser has no such units")
    before = run(name, pipe)
    here = under(name, pipe, policy)
    assert torch.equal(under(name, pipe, policy), here)
    assert torch.equal(run(name, pipe), before)
    if name not in CHAOTIC:
        assert apart(here, under(name, family.make(), policy)) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_computing_every_step_changes_no_bit(name: str) -> None:
    pipe = shared(name)
    assert torch.equal(under(name, pipe, every_step(structure_of(FAMILIES[name], pipe))), run(name, pipe))


@pytest.mark.parametrize("name", NAMES)
def test_shared_prefixes_change_no_bit(name: str) -> None:
    family, pipe, cache = FAMILIES[name], shared(name), PrefixCache(2**30)
    found = [technique(case, family, structure_of(family, pipe)) for case in ("nothing", "reuse nearly all")]
    for policy in [other for base in found if base for other in (base, *later_changes(family, base))]:
        expected = plainly(family, pipe, policy)
        assert torch.equal(sharing(family, pipe, policy, cache), expected), policy.id
    assert sum(use.skipped for use in cache.take_uses()) > 0


# NumPy, in which DDPM returns its pictures, has no bfloat16.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "ddpm"])
def test_in_half_precision_pictures_stay_near(name: str, dtype: torch.dtype) -> None:
    """Nothing that the runtime does between steps may leave the dtype, nor overflow in it."""
    pipe = make(name, dtype)
    policy = policy_of(name, pipe)
    made = under(name, pipe, policy)
    assert torch.isfinite(made).all()
    # What half precision costs the plain run, and a little more.
    plain = apart(run(name, pipe), run(name, shared(name)))
    assert apart(made, under(name, shared(name), policy)) < 4 * plain + 0.02


@pytest.mark.parametrize("name", ["sd", "pixart-alpha", "flux"])
def test_generators_of_the_gpu_serve(name: str) -> None:
    pipe = shared(name)
    policy = policy_of(name, pipe)

    def generator() -> torch.Generator:
        return torch.Generator("cuda").manual_seed(3)

    made = under(name, pipe, policy, generator=generator())
    assert torch.equal(under(name, pipe, policy, generator=generator()), made)


@pytest.mark.parametrize("name", ["sd", "pixart-alpha", "flux"])
def test_a_policy_makes_the_cpu_wait_for_the_gpu_no_more_often(name: str) -> None:
    """But for what happens once a call: a wait in every step would cost more than it saves."""
    pipe = shared(name)
    policy = policy_of(name, pipe)

    def waits(steps: int, under_policy: bool) -> int:
        changed = policy.model_copy(update={"steps": steps})
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                if under_policy:
                    under(name, pipe, changed)
                else:
                    run(name, pipe, num_inference_steps=steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(each.message) for each in seen)

    run(name, pipe)
    under(name, pipe, policy)
    more_steps = STEPS + 6
    plain = waits(more_steps, False) - waits(STEPS, False)
    assert waits(more_steps, True) - waits(STEPS, True) <= plain


OFFLOADS: dict[str, Callable[[Any, Any], None]] = {
    "model": lambda pipe, denoiser: pipe.enable_model_cpu_offload(),
    "sequential": lambda pipe, denoiser: pipe.enable_sequential_cpu_offload(),
    "group": lambda pipe, denoiser: denoiser.enable_group_offload(
        onload_device=torch.device("cuda"), offload_device=torch.device("cpu"), offload_type="leaf_level"
    ),
    "group, stream": lambda pipe, denoiser: denoiser.enable_group_offload(
        onload_device=torch.device("cuda"),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=True,
    ),
}


@pytest.mark.parametrize("first", ["offload", "policy"])
@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("name", ["sd", "pixart-alpha", "flux"])
def test_offloaded_weights_come_back_when_they_are_needed(name: str, offload: str, first: str) -> None:
    expected = under(name, shared(name), policy_of(name, shared(name)))
    pipe = FAMILIES[name].make()
    if offload.startswith("group"):
        for part, component in pipe.components.items():
            if isinstance(component, torch.nn.Module) and part != FAMILIES[name].denoiser:
                component.to("cuda")
    policy = policy_of(name, pipe)
    if first == "policy":
        apply_policy(pipe, policy)
    OFFLOADS[offload](pipe, denoiser_of(name, pipe))
    if first == "offload":
        apply_policy(pipe, policy)
    for _ in range(2):
        assert apart(run(name, pipe), expected) < TOLERANCE
    remove_policy(pipe)
    assert apart(run(name, pipe), run(name, shared(name))) < TOLERANCE


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("what", ["blocks", "denoiser"])
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_compiled_it_makes_the_same_pictures(name: str, what: str, mode: str) -> None:
    """Under CUDA graphs, too, whose results the next call of the same graph writes over."""
    torch._dynamo.reset()
    pipe = make(name)
    policy = policy_of(name, pipe, "reuse nearly all")
    expected, plain = under(name, pipe, policy), run(name, pipe)
    denoiser = denoiser_of(name, pipe)
    if what == "blocks":
        denoiser.compile_repeated_blocks(mode=mode)
    else:
        denoiser.compile(mode=mode)
    try:
        for _ in range(3):
            assert apart(run(name, pipe), plain) < TOLERANCE
    except RuntimeError as error:
        pytest.skip(f"without a policy: {error}")
    for _ in range(3):
        assert apart(under(name, pipe, policy), expected) < TOLERANCE
    assert apart(run(name, pipe), plain) < TOLERANCE


def test_a_profile_of_the_gpu_predicts_it() -> None:
    pipe = demo_pipeline("emoji-unet").to("cuda")
    profile = measure_profile(pipe, batches=[8], scales=[0.5], rounds=3)
    assert profile.device.kind == "cuda" and profile.device.name == torch.cuda.get_device_name()
    cost = price(pipe, Policy(steps=10), batch_size=8, target=profile)
    full = price(pipe, Policy(steps=demo_assets("emoji-unet").full_steps), batch_size=8, target=profile)
    assert cost.latency_ms is not None and full.latency_ms is not None
    assert 0.3 < cost.latency_ms / full.latency_ms < 0.7


def _search(folder: Path, name: str, **options: Any) -> Any:
    pipe = demo_pipeline("emoji-unet").to("cuda")
    settings: dict[str, Any] = {"batch_size": BATCH, "trials": 6, "images": 32, "held_out_images": 32, "seed": 0}
    return tune(pipe, "40%", run_dir=folder / name, **settings, **options)


def test_a_search_on_the_gpu_ends_alike_with_and_without_shared_prefixes(tmp_path: Path) -> None:
    one = _search(tmp_path, "one")
    other = _search(tmp_path, "other", prefix_memory=0)
    assert one.policy.key == other.policy.key
    assert load_policy(tmp_path / "one" / "policy.json").key == one.policy.key
