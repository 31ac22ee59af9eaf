"""Several policies on one pipeline: each call follows the tier that its own thread or task has chosen.

Of :mod:`autotune.runtime.tiers`, :mod:`autotune.runtime.runtime` and :mod:`autotune.runtime.hook_set`. That a tier's
pictures are those of its policy alone is shown for every family in :mod:`tests.conformance.test_tiers`.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import autotune
from autotune.core.errors import InputError, PolicyError
from autotune.policy import CacheRule, Policy, SchedulerChoice
from autotune.runtime import applied, apply_policies, apply_policy, describe_model, remove_policy, tier
from autotune.runtime.apply import session_of
from tests.runtime.test_calls import Fault, called_back
from tests.runtime.test_compile import Counting, compile_blocks, compile_in_place, result, shallow, under
from tests.runtime.test_compile import cached as caching
from tests.runtime.test_lora import TARGETS, load
from tests.runtime.test_offload import no_more_offload, sequential_offload
from tests.support.builders import FAMILIES
from tests.support.ecosystem import CASES, NAMES, denoiser_of, expected, make, plain, policy_of, run
from tests.support.techniques import STEPS
from tests.support.watch import traces

each_pipeline = pytest.mark.parametrize("name", NAMES)
# By tier, the technique.
TIERS = dict(zip(("high", "medium", "draft", "rate"), CASES, strict=True))


def tiers_of(name: str, pipe: Any) -> dict[str, Policy]:
    return {each: policy_of(name, pipe, case) for each, case in TIERS.items()}


def with_tiers(name: str, default: str = "high") -> Any:
    pipe = make(name)
    return apply_policies(pipe, tiers_of(name, pipe), default=default)


def wanted(name: str, chosen: str) -> Tensor:
    return plain(name) if chosen == "full" else expected(name, TIERS[chosen])


def run_in(name: str, pipe: Any, chosen: str, **options: Any) -> Tensor:
    with tier(pipe, chosen):
        return run(name, pipe, **options)


@each_pipeline
def test_without_a_choice_calls_follow_the_default(name: str) -> None:
    assert torch.equal(run(name, with_tiers(name, "draft")), wanted(name, "draft"))


def test_the_default_is_the_full_run_unless_said() -> None:
    pipe = make("sd")
    apply_policies(pipe, tiers_of("sd", pipe))
    assert torch.equal(run("sd", pipe), plain("sd"))


def test_tiers_come_and_go_in_any_order_also_inside_of_one_another() -> None:
    pipe = with_tiers("sd")
    with tier(pipe, "draft"):
        assert torch.equal(run("sd", pipe), wanted("sd", "draft"))
        for inner in ("full", "high"):
            assert torch.equal(run_in("sd", pipe, inner), wanted("sd", inner))
        assert torch.equal(run("sd", pipe), wanted("sd", "draft"))
    assert torch.equal(run("sd", pipe), wanted("sd", "high"))


def test_a_full_run_takes_the_steps_that_policies_are_compared_with() -> None:
    pipe = make("sd")
    model = describe_model(pipe, full_steps=STEPS)
    apply_policies(pipe, {"draft": policy_of("sd", pipe).model_copy(update={"model": model})})
    assert session_of(pipe) is None
    steps: list[int] = []

    def note(pipe: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(index)
        return tensors

    pipe(**call_without_steps("sd"), callback_on_step_end=note)
    assert steps == list(range(STEPS))
    # And others where the caller says so.
    steps.clear()
    pipe(**call_without_steps("sd"), num_inference_steps=3, callback_on_step_end=note)
    assert steps == [0, 1, 2]


def call_without_steps(name: str) -> dict[str, Any]:
    arguments = FAMILIES[name].arguments(steps=STEPS)
    del arguments["num_inference_steps"]
    return arguments


@each_pipeline
def test_removed_tiers_leave_no_trace(name: str) -> None:
    pipe = make(name)
    run(name, pipe)
    before = traces(pipe), type(pipe), set(vars(pipe))
    apply_policies(pipe, tiers_of(name, pipe), default="medium")
    for chosen in (*TIERS, "full"):
        run_in(name, pipe, chosen)
    remove_policy(pipe)
    assert (traces(pipe), type(pipe), set(vars(pipe))) == before
    assert torch.equal(run(name, pipe), plain(name))


def test_each_tier_has_its_own_solver() -> None:
    pipe = make("sd")
    other = Policy(steps=STEPS, scheduler=SchedulerChoice(name="DPMSolverMultistepScheduler"))
    with applied(pipe, other):
        want = run("sd", pipe)
    own = pipe.scheduler
    apply_policies(pipe, {"high": policy_of("sd", pipe), "other": other}, default="other")
    for _ in range(2):
        assert torch.equal(run("sd", pipe), want)
        assert torch.equal(run_in("sd", pipe, "high"), wanted("sd", "high"))
        assert torch.equal(run_in("sd", pipe, "full"), plain("sd"))
        assert pipe.scheduler is own


@each_pipeline
def test_threads_choose_for_themselves_and_calls_take_turns(name: str) -> None:
    pipe = with_tiers(name, "draft")
    begun = threading.Barrier(len(TIERS) + 1)

    def work(chosen: str) -> tuple[str, Tensor]:
        with tier(pipe, chosen):
            begun.wait(60)
            return chosen, run(name, pipe)

    with ThreadPoolExecutor(len(TIERS) + 1) as pool, tier(pipe, "high"):
        for chosen, found in pool.map(work, (*TIERS, "full")):
            assert torch.equal(found, wanted(name, chosen)), chosen
        # A thread that chooses nothing sees nobody's choice.
        assert torch.equal(pool.submit(run, name, pipe).result(), wanted(name, "draft"))


def test_tasks_choose_for_themselves() -> None:
    pipe = with_tiers("sd", "draft")

    async def work(chosen: str) -> tuple[str, Tensor]:
        with tier(pipe, chosen):
            # The others choose in between.
            await asyncio.sleep(0.01)
            return chosen, await asyncio.to_thread(run, "sd", pipe)

    async def all_at_once() -> list[tuple[str, Tensor]]:
        found = await asyncio.gather(*map(work, (*TIERS, "full")))
        assert torch.equal(run("sd", pipe), wanted("sd", "draft"))
        return found

    for chosen, found in asyncio.run(all_at_once()):
        assert torch.equal(found, wanted("sd", chosen)), chosen


def test_a_call_in_progress_keeps_its_tier() -> None:
    pipe = with_tiers("sd")

    def choose_another(index: int, latents: Any) -> None:
        tier(pipe, "draft").__enter__()

    with tier(pipe, "high"):
        found = run("sd", pipe, **called_back(pipe, choose_another))
    assert torch.equal(found, wanted("sd", "high"))


@each_pipeline
def test_after_a_call_that_was_broken_off_the_next_one_follows_its_own_tier(name: str) -> None:
    pipe = with_tiers(name)

    def fail(index: int, latents: Any) -> None:
        if index == 2:
            raise Fault

    for broken, following in (("high", "draft"), ("draft", "full"), ("medium", "medium")):
        with pytest.raises(Fault):
            run_in(name, pipe, broken, **called_back(pipe, fail))
        assert torch.equal(run_in(name, pipe, following), wanted(name, following))


def test_choosing_and_entering_a_call_takes_less_than_a_millisecond() -> None:
    """All that a call under another tier than the last one adds to the pipeline's own time, 1,000 times."""

    class Entered(Exception):
        pass

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Entered

    pipe = with_tiers("sd")
    pipe.check_inputs = stop  # What the pipeline begins with.
    times = []
    for chosen in itertools.islice(itertools.cycle((*TIERS, "full")), 1000):
        begin = time.perf_counter()
        with pytest.raises(Entered), tier(pipe, chosen):
            pipe("a prompt")
        times.append(time.perf_counter() - begin)
    assert statistics.median(times) < 1e-3


def test_choosing_alone_takes_microseconds() -> None:
    pipe = with_tiers("sd")
    times = []
    for chosen in itertools.islice(itertools.cycle((*TIERS, "full")), 1000):
        begin = time.perf_counter()
        with tier(pipe, chosen):
            pass
        times.append(time.perf_counter() - begin)
    assert statistics.median(times) < 1e-4


@pytest.mark.parametrize(
    ("name", "compile"), [("flux-dev", compile_blocks), ("pixart-alpha", compile_in_place)], ids=["blocks", "whole"]
)
def test_a_tier_that_returns_compiles_nothing(name: str, compile: Any) -> None:
    torch._dynamo.reset()
    backend = Counting()
    pipe = shallow(name)
    half = {"rule": {"mode": "residual", "compute_steps": (0, 3)}}
    tiers = {"high": caching(name, pipe), "draft": caching(name, pipe, **half)}
    apply_policies(pipe, tiers, default="high")
    compile(name, pipe, backend=backend, fullgraph=True)
    counters = torch._dynamo.utils.counters["stats"]
    with torch._dynamo.config.patch(recompile_limit=16):
        for chosen in (*tiers, "full"):
            with tier(pipe, chosen):
                result(name, pipe)
        graphs = backend.graphs, counters["unique_graphs"]
        assert graphs[0] > 0
        for chosen in ("draft", "full", "high", "draft"):
            with tier(pipe, chosen):
                found = result(name, pipe)
            if chosen != "full":
                torch.testing.assert_close(found, under(name, tiers[chosen]))
        assert (backend.graphs, counters["unique_graphs"]) == graphs
    torch._dynamo.reset()


# What may happen to a pipeline while it is served, in every order; afterwards all tiers are as they should be.
EVENTS = ("lora", "offload", "copy", "apply again")
# By default four orders, each event being the first of one, on the pipelines in turn.
ORDERS = [
    pytest.param(
        name, order, marks=[pytest.mark.exhaustive] if index % 6 or place != index % 4 // 2 else [], id=", ".join(order)
    )
    for index, order in enumerate(itertools.permutations(EVENTS))
    for place, name in enumerate(TARGETS)
]


@cache
def adapted(name: str, chosen: str) -> Tensor:
    """What a pipeline with an adapter makes under a tier's policy alone."""
    pipe = make(name)
    load(name, pipe)
    if chosen == "full":
        return run(name, pipe)
    with applied(pipe, policy_of(name, pipe, TIERS[chosen])):
        return run(name, pipe)


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_tiers_outlive_adapters_offloading_and_copies(name: str, order: tuple[str, ...]) -> None:
    pipe = with_tiers(name)
    has_adapter = False
    turns = itertools.cycle(("draft", "high", "rate", "full"))

    def holds(pipe: Any) -> None:
        for chosen in itertools.islice(turns, 2):
            want = adapted(name, chosen) if has_adapter else wanted(name, chosen)
            assert torch.equal(run_in(name, pipe, chosen), want), chosen

    holds(pipe)
    for event in order:
        if event == "lora":
            # With offloading on, diffusers wants an accelerator for this.
            no_more_offload(pipe, denoiser_of(name, pipe))
            load(name, pipe)
            has_adapter = True
        elif event == "offload":
            sequential_offload(pipe, denoiser_of(name, pipe))
        elif event == "copy":
            clone = copy.deepcopy(pipe)
            holds(clone)
            remove_policy(clone)
            assert torch.equal(run(name, clone), adapted(name, "full") if has_adapter else plain(name))
        else:
            remove_policy(pipe)
            assert torch.equal(run(name, pipe), adapted(name, "full") if has_adapter else plain(name))
            apply_policies(pipe, tiers_of(name, pipe), default="draft")
        holds(pipe)
    no_more_offload(pipe, denoiser_of(name, pipe))
    pipe.unload_lora_weights()
    has_adapter = False
    holds(pipe)
    remove_policy(pipe)
    assert torch.equal(run(name, pipe), plain(name))


def test_a_copy_has_the_same_tiers_and_default_and_nobodys_choice() -> None:
    pipe = with_tiers("flux", "medium")
    with tier(pipe, "draft"):
        clone = copy.deepcopy(pipe)
        assert torch.equal(run("flux", clone), wanted("flux", "medium"))
        assert torch.equal(run_in("flux", clone, "high"), wanted("flux", "high"))
        assert torch.equal(run("flux", pipe), wanted("flux", "draft"))


def test_one_policy_is_a_tier_beside_the_full_run() -> None:
    pipe = make("sd")
    apply_policy(pipe, policy_of("sd", pipe))
    assert torch.equal(run_in("sd", pipe, "full"), plain("sd"))
    assert torch.equal(run("sd", pipe), expected("sd"))


def test_a_set_from_a_file_is_applied_as_it_is(tmp_path: Any) -> None:
    pipe = make("sd")
    autotune.PolicySet(tiers=tiers_of("sd", pipe)).save(tmp_path / "policies.json")
    autotune.apply_policies(pipe, autotune.load_policies(tmp_path / "policies.json"), default="medium")
    assert torch.equal(run("sd", pipe), wanted("sd", "medium"))


def test_what_cannot_be_chosen_is_refused_by_name() -> None:
    pipe = make("sd")
    with pytest.raises(InputError, match=r"runs under no policies: call apply_policies"):
        tier(pipe, "draft")
    tiers = tiers_of("sd", pipe)
    with pytest.raises(InputError, match="the pipeline has no tier 'best'; valid: draft, full, high, medium, rate"):
        apply_policies(pipe, tiers, default="best")
    apply_policies(pipe, tiers, default="high")
    with pytest.raises(InputError, match="no tier 'drafts'; did you mean 'draft'"):
        tier(pipe, "drafts")
    with pytest.raises(InputError, match="already runs under a policy"):
        apply_policies(pipe, tiers)


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ({}, "tiers"),
        ({"full": Policy(steps=3)}, "'full' is the full run, which every set has"),
        ({"High Quality": Policy(steps=3)}, "'High Quality' is no name for a tier"),
        (
            {
                "good": Policy(steps=3),
                "bad": Policy(steps=3, cache=(CacheRule(units=("nowhere",), compute_steps=(0,)),)),
            },
            "tier 'bad': .*nowhere",
        ),
    ],
)
def test_tiers_that_cannot_be_are_refused_before_anything_changes(tiers: dict[str, Policy], words: str) -> None:
    pipe = make("sd")
    before = traces(pipe), type(pipe)
    with pytest.raises(PolicyError, match=words):
        apply_policies(pipe, tiers)
    assert (traces(pipe), type(pipe)) == before
