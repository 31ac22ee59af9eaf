"""Random calls of pipelines as people set them up: what is done by hand comes out, or one sentence before any work.

What is done by hand, in :mod:`tests.support.by_hand`, has no hooks: every unit is computed, or overwritten explicitly.
Only the size of the latents is the runtime's there too, under a policy that does nothing else: how it moves them has
tests of its own (``tests/runtime/test_resolution.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied, apply_policy, remove_policy
from tests.support.adapters import image_embeds, load_ip_adapters
from tests.support.builders import FAMILIES, TinyFamily
from tests.support.by_hand import by_hand, precise
from tests.support.techniques import HANDOFFS
from tests.support.watch import traces

STEPS = 4
CUTOFFS = {"sd": SDCFGCutoffCallback, "lcm": SDCFGCutoffCallback, "sdxl": SDXLCFGCutoffCallback}
IP_ADAPTERS = ("sd", "sdxl", "sd-img2img")
# What it computes in single precision cannot be had in double.
NAMES = [name for name in FAMILIES if name != "generic"]


@dataclass(frozen=True)
class Scenario:
    """One pipeline, what was done to it in which order, and how it is called.

    Attributes:
        units: places in the list of the denoiser's blocks and units, as shares of its length.
        compute: further steps that these compute in, after the first.
        interval: of guidance, or None for all steps.
        low: the stage below full size that the call begins with, or None.
        cutoff: the step after which a callback of diffusers turns guidance off.
        adapters: IP-Adapters.
        order: what is done before the call; a later one may find the policy applied.
        sibling: whether another pipeline object shares the components; True where it has a policy of its own.
        sibling_in_callback: whether that is called after every step too, with a scheduler of its own.
    """

    name: str
    batch: int
    guidance: bool
    units: tuple[float, ...]
    compute: frozenset[int]
    interval: tuple[int, int] | None
    low: ResolutionStage | None
    cutoff: int | None
    adapters: int
    order: tuple[str, ...]
    sibling: bool | None
    sibling_in_callback: bool


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    name = draw(st.sampled_from(NAMES))
    start = draw(st.integers(0, STEPS - 1))
    interval = draw(st.none() | st.just((start, draw(st.integers(start + 1, STEPS)))))
    events = ["policy", *draw(st.lists(st.sampled_from(["FreeU", "LoRA", "offload", "call"]), unique=True))]
    low = st.builds(
        ResolutionStage,
        scale=st.sampled_from([0.5, 0.75]),
        until_step=st.integers(1, STEPS - 1),
        handoff=st.sampled_from(HANDOFFS),
    )
    return Scenario(
        name=name,
        batch=draw(st.integers(1, 2)),
        guidance=draw(st.booleans()),
        units=tuple(draw(st.lists(st.floats(0, 0.999), min_size=1, max_size=2))),
        compute=frozenset(draw(st.sets(st.integers(1, STEPS - 1)))),
        interval=interval,
        low=draw(st.none() | low),
        cutoff=draw(st.none() | st.integers(0, STEPS - 1)) if name in CUTOFFS else None,
        adapters=draw(st.integers(0, 2)) if name in IP_ADAPTERS else 0,
        order=tuple(draw(st.permutations(events))),
        sibling=draw(st.sampled_from([None, False, True])),
        sibling_in_callback=draw(st.booleans()),
    )


class Setup:
    """A pipeline made for a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.family: TinyFamily = FAMILIES[scenario.name]
        self.pipe = precise(self.family.make())
        if scenario.adapters:
            load_ip_adapters(self.pipe, scenario.adapters)
        self.sibling = _twin(self.pipe)

    @property
    def denoiser(self) -> nn.Module:
        module: nn.Module = getattr(self.pipe, self.family.denoiser)
        return module

    def policy(self, shift: int = 0) -> Policy:
        """Other units for the sibling's own."""
        structure = find_units(self.denoiser)
        # A U-Net's down block stands for the last unit in it, and by hand all of it would be overwritten.
        names = [block.name for block in structure.blocks if not block.name.startswith("down")]
        names += [unit.name for unit in structure.units[:-1]]
        chosen = {names[(int(share * len(names)) + shift) % len(names)] for share in self.scenario.units}
        interval = self.scenario.interval if self.family.guided else None
        return Policy(
            steps=STEPS,
            resolution=() if self.scenario.low is None else (self.scenario.low,),
            guidance=None if interval is None else Guidance(start_step=interval[0], stop_step=interval[1]),
            cache=(CacheRule(units=tuple(sorted(chosen)), compute_steps=(0, *sorted(self.scenario.compute))),),
        )

    def call(self, pipe: Any, **options: Any) -> Tensor:
        scenario = self.scenario
        if scenario.adapters:
            guided = scenario.guidance and self.family.guided
            options["ip_adapter_image_embeds"] = image_embeds(scenario.adapters, guided=guided)
        arguments = self.family.arguments(batch=scenario.batch, guidance=scenario.guidance, steps=STEPS)
        return self.family.run(pipe, **arguments | options)

    def callbacks(self, sibling: Any = None) -> dict[str, Any]:
        scenario = self.scenario
        # The callback keeps the last row of the text only, and all rows of the pictures' embeddings.
        if scenario.cutoff is not None and scenario.batch == 1 and scenario.guidance and not scenario.adapters:
            cutoff = CUTOFFS[scenario.name](cutoff_step_ratio=None, cutoff_step_index=scenario.cutoff)
            return {"callback_on_step_end": cutoff}
        if sibling is None or not hasattr(self.pipe, "_callback_tensor_inputs"):
            return {}

        def preview(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            self.call(sibling)
            return {}

        return {"callback_on_step_end": preview}

    def do(self, event: str) -> None:
        actions: dict[str, Callable[[], Any]] = {
            "policy": lambda: apply_policy(self.pipe, self.policy()),
            "FreeU": self._freeu,
            "LoRA": self._lora,
            "offload": self._offload,
            "call": lambda: self.call(self.pipe),
        }
        actions[event]()

    def _freeu(self) -> None:
        if hasattr(self.pipe, "enable_freeu"):
            self.pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)

    def _lora(self) -> None:
        if not hasattr(self.denoiser, "add_adapter"):
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(9)
            # Not of keys: sharp attention amplifies rounding errors.
            targets = r".*\.(to_q|to_v)"
            module: Any = self.denoiser
            module.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights="gaussian"))
            for name, parameter in module.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter, std=0.1)
        module.to(torch.float64).requires_grad_(False)

    def _offload(self) -> None:
        denoiser: Any = self.denoiser
        if denoiser._supports_group_offloading:
            cpu = torch.device("cpu")
            denoiser.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def _twin(pipe: Any) -> Any:
    """Another pipeline object of the same class and components, with a scheduler of its own."""
    _, optional = type(pipe)._get_signature_keys(pipe)
    other = type(pipe)(**pipe.components | {name: pipe.config[name] for name in optional if name in pipe.config})
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    other.set_progress_bar_config(disable=True)
    return other


@contextmanager
def _by_hand(hand: Setup, policy: Policy) -> Iterator[None]:
    """One call of the pipeline does what the policy says, of which the runtime does the size of the latents alone."""
    scenario, family = hand.scenario, hand.family
    with (
        by_hand(
            hand.pipe,
            hand.denoiser,
            policy,
            conditional_first=family.conditional_first,
            separate=family.guidance == "separate",
        ) as reference,
        applied(hand.pipe, Policy(steps=STEPS, resolution=policy.resolution)) if policy.resolution else nullcontext(),
    ):
        reference.pictures = scenario.batch
        reference.first_step = reference.step = STEPS - family.executed_steps(STEPS)
        yield


def check(scenario: Scenario) -> None:
    """One scenario: under the policy as by hand, the sibling plain or by hand, and nothing left behind."""
    hand = Setup(scenario)
    for event in scenario.order:
        if event not in ("policy", "call"):
            hand.do(event)
    plain = hand.call(hand.pipe)
    policies = {False: hand.policy(), True: hand.policy(1)}
    if any(getattr(policies[False], field) for field in hand.family.refuses):
        with pytest.raises(InputError):
            apply_policy(hand.pipe, policies[False])
        return
    expected = {}
    for of_sibling, policy in policies.items():
        with _by_hand(hand, policy):
            expected[of_sibling] = hand.call(hand.pipe, **({} if of_sibling else hand.callbacks()))

    setup = Setup(scenario)
    if scenario.sibling:
        apply_policy(setup.sibling, policies[True])
    for event in scenario.order:
        setup.do(event)
    calls: list[int] = []
    handle = setup.denoiser.register_forward_hook(lambda *_: calls.append(1))
    in_callback = setup.sibling if scenario.sibling_in_callback and scenario.sibling is not None else None
    try:
        result = setup.call(setup.pipe, **setup.callbacks(in_callback))
    except InputError:
        assert not calls
    else:
        torch.testing.assert_close(result, expected[False], atol=1e-5, rtol=1e-5)
    handle.remove()
    if scenario.sibling is not None:
        theirs = setup.call(setup.sibling)
        torch.testing.assert_close(
            theirs, expected[True] if scenario.sibling else plain, atol=1e-5 if scenario.sibling else 0, rtol=0
        )
    if scenario.sibling:
        remove_policy(setup.sibling)
    remove_policy(setup.pipe)
    assert torch.equal(setup.call(setup.pipe), plain)
    assert torch.equal(setup.call(setup.sibling), plain)
    left, never = traces(setup.pipe), traces(hand.pipe)
    assert (left["hooks"], left["pipe"], left["scheduler"][1]) == (never["hooks"], never["pipe"], never["scheduler"][1])


# An example takes a second: one that fails is small enough as it is.
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("examples", [6, pytest.param(300, marks=[pytest.mark.exhaustive])])
def test_random_calls(examples: int) -> None:
    @settings(_SETTINGS, max_examples=examples)
    @given(scenarios())
    def run(scenario: Scenario) -> None:
        check(scenario)

    run()
