"""Calls of pipelines as people set them up, against what is done by hand.

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
from peft import LoraConfig
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, lowest_version
from autotune.runtime import applied, apply_policy, remove_policy
from tests.support.adapters import image_embeds, load_ip_adapters
from tests.support.builders import FAMILIES, TinyFamily
from tests.support.by_hand import by_hand, precise
from tests.support.watch import traces

STEPS = 4
CUTOFFS = {"sd": SDCFGCutoffCallback, "lcm": SDCFGCutoffCallback, "sdxl": SDXLCFGCutoffCallback}
"""Those of diffusers, by family."""


@dataclass(frozen=True)
class Scenario:
    """One pipeline, what was done to it in which order, and how it is called.

    Attributes:
        units: places in the list of the denoiser's blocks and units, as shares of its length.
        compute: further steps that these compute in, after the first.
        interval: of guidance, or None for all steps.
        rate: every how many of these steps both branches are computed.
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
    rate: int = 1

    @property
    def cuts_off(self) -> bool:
        """Whether a callback turns guidance off; it cannot reach the rows of pictures' embeddings."""
        return self.cutoff is not None and self.guidance and not self.adapters

    def rows(self, executed: int) -> int:
        """Of so many steps' calls of a guided denoiser, all together."""
        cut = max(executed - self.cutoff - 1, 0) if self.cutoff is not None and self.cuts_off else 0
        return self.batch * (2 * executed - cut)


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
        guidance = self.guidance() if self.family.guided else None
        return Policy(
            steps=STEPS,
            resolution=() if self.scenario.low is None else (self.scenario.low,),
            guidance=guidance,
            version=lowest_version(None, (), guidance),
            cache=(CacheRule(units=tuple(sorted(chosen)), compute_steps=(0, *sorted(self.scenario.compute))),),
        )

    def guidance(self) -> Guidance | None:
        """What the policy says of it."""
        scenario = self.scenario
        if scenario.interval is None and scenario.rate == 1:
            return None
        start, stop = scenario.interval or (0, STEPS)
        return Guidance(start_step=start, stop_step=stop, compute_steps=tuple(range(start, stop, scenario.rate)))

    def call(self, pipe: Any, **options: Any) -> Tensor:
        scenario = self.scenario
        if scenario.adapters:
            guided = scenario.guidance and self.family.guided
            options["ip_adapter_image_embeds"] = image_embeds(scenario.adapters, guided=guided)
        arguments = self.family.arguments(batch=scenario.batch, guidance=scenario.guidance, steps=STEPS)
        return self.family.run(pipe, **arguments | options)

    def callbacks(self, sibling: Any = None) -> dict[str, Any]:
        scenario = self.scenario
        if scenario.cuts_off:
            return _cut_off(self.pipe, self.family, scenario)
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
            targets = r".*\.(to_q|to_v|to_query|to_value)"
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


def _cut_off(pipe: Any, family: TinyFamily, scenario: Scenario) -> dict[str, Any]:
    """The callback that turns guidance off after a step; of one picture diffusers' own where there is one."""
    if scenario.name in CUTOFFS and scenario.batch == 1:
        cutoff = CUTOFFS[scenario.name](cutoff_step_ratio=None, cutoff_step_index=scenario.cutoff)
        return {"callback_on_step_end": cutoff}
    rows = scenario.batch
    conditional = slice(0, rows) if family.conditional_first else slice(rows, 2 * rows)

    def turn_off(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index != scenario.cutoff:
            return {}
        pipe._guidance_scale = family.scale[2]
        return {name: value[conditional] for name, value in tensors.items() if len(value) == 2 * rows}

    inputs = [name for name in pipe._callback_tensor_inputs if name != "latents"]
    return {"callback_on_step_end": turn_off, "callback_on_step_end_tensor_inputs": inputs}


def _twin(pipe: Any) -> Any:
    """Another pipeline object of the same class and components, with a scheduler of its own."""
    _, optional = type(pipe)._get_signature_keys(pipe)
    # Not all that a pipeline is made with is in its config: layers to perturb are not. A guider is the twin's own.
    listed = {name: value for name in optional if isinstance(value := getattr(pipe, name, None), list)}
    settings = listed | dict(pipe.config)
    other = type(pipe)(**pipe.components | {name: settings[name] for name in optional if name in settings})
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    other.set_progress_bar_config(disable=True)
    return other


@contextmanager
def _by_hand(hand: Setup, policy: Policy) -> Iterator[Any]:
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
        yield reference


def check(scenario: Scenario) -> None:
    """One scenario: under the policy as by hand, the sibling plain or by hand, and nothing left behind."""
    hand = Setup(scenario)
    for event in scenario.order:
        if event not in ("policy", "call"):
            hand.do(event)
    plain = hand.call(hand.pipe)
    # Of the same components, but another object: to the bit it must be what it was itself.
    plain_sibling = hand.call(hand.sibling)
    torch.testing.assert_close(plain_sibling, plain, atol=1e-5, rtol=1e-5)
    policies = {False: hand.policy(), True: hand.policy(1)}
    if any(getattr(policies[False], field) for field in hand.family.refuses):
        with pytest.raises(InputError):
            apply_policy(hand.pipe, policies[False])
        return
    expected = {}
    for of_sibling, policy in policies.items():
        with _by_hand(hand, policy) as reference:
            expected[of_sibling] = hand.call(hand.pipe, **({} if of_sibling else hand.callbacks()))
        if scenario.cuts_off and not of_sibling:
            assert reference.rows == scenario.rows(hand.family.executed_steps(STEPS))

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
            theirs,
            expected[True] if scenario.sibling else plain_sibling,
            atol=1e-5 if scenario.sibling else 0,
            rtol=0,
        )
    if scenario.sibling:
        remove_policy(setup.sibling)
    remove_policy(setup.pipe)
    assert torch.equal(setup.call(setup.pipe), plain)
    assert torch.equal(setup.call(setup.sibling), plain_sibling)
    left, never = traces(setup.pipe), traces(hand.pipe)
    assert (left["hooks"], left["pipe"], left["scheduler"][1]) == (never["hooks"], never["pipe"], never["scheduler"][1])
