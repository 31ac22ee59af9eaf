"""What a policy costs on one model, in every detail, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from autotune.core.errors import InputError
from autotune.cost import Cost, Pricer, Profile
from autotune.cost.breakdown import Breakdown, break_down
from autotune.cost.encoder_decoder import EncoderDecoderCost, encoder_decoder_cost
from autotune.policy import Policy
from autotune.runtime.models import denoiser_of
from autotune.runtime.strength import STRENGTH, strength_of


@dataclass(frozen=True)
class Quote:
    """What a policy costs on one model, at one size of pictures and one batch size; figures are of the whole batch.

    Attributes:
        policy: its id.
        model: by the name it was asked for.
        height, width: of the pictures, in pixels.
        latents: height and width of theirs.
        batch: pictures in a call of the pipeline.
        full_steps: steps of the full run.
        device: what times are predicted for; None without a hardware profile.
        cost: under the policy.
        full: of the full run.
        units: how many the denoiser has.
        encoder_decoder: text encoders and decoder.
    """

    policy: str
    model: str
    height: int
    width: int
    latents: tuple[int, int]
    batch: int
    full_steps: int
    device: str | None
    cost: Cost
    full: Cost
    breakdown: Breakdown
    units: int
    encoder_decoder: EncoderDecoderCost

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it. Totals are at the top level."""
        return (
            {name: getattr(self, name) for name in ("policy", "model", "height", "width", "batch", "device")}
            | asdict(self.cost)
            | {"full": {"steps": self.full_steps} | asdict(self.full)}
            | asdict(self.breakdown)
            | {"encoder_decoder": asdict(self.encoder_decoder)}
        )


def quote(
    pipe: Any,
    policy: Policy,
    *,
    model: str,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    guided: bool | None = None,
    strength: float | None = None,
    target: Profile | None = None,
) -> Quote:
    """Price ``policy`` in every detail.

    Args:
        model: what to call the pipeline.
        height, width: of the pictures, in pixels; the model's native size by default.
        batch: pictures in one call of the pipeline.
        guided: whether calls use classifier-free guidance; None is what the pipeline does by default.
        strength: of image-to-image; None executes all steps.
        target: a hardware profile to predict milliseconds with.

    Raises:
        InputError: the pipeline takes no strength.
        PolicyError: the policy does not fit the pipeline at this size.
        ProfileError: the profile is of something else, or has no times for this batch size.
    """
    full_steps = policy.model.full_steps if policy.model else None
    pricer = Pricer(
        pipe, height, width, full_steps=full_steps, guided=guided, target=target, call=_at_strength(pipe, strength)
    )
    breakdown = break_down(
        pricer.plan(policy),
        pricer.plan(Policy(steps=pricer.full_steps)),
        pricer.table,
        itemsize=next(denoiser_of(pipe).parameters()).element_size(),
        batch_size=batch,
        latency=None if target is None else pricer.latency(batch),
    )
    return Quote(
        policy=policy.id,
        model=model,
        height=pricer.subject.height,
        width=pricer.subject.width,
        latents=(pricer.height, pricer.width),
        batch=batch,
        full_steps=pricer.full_steps,
        device=None if target is None else target.device.title,
        cost=pricer.price(policy, batch),
        full=pricer.full_cost(batch),
        breakdown=breakdown,
        units=len(pricer.structure.units),
        encoder_decoder=_times(encoder_decoder_cost(pipe, height, width, guided=guided), batch),
    )


def _at_strength(pipe: Any, strength: float | None) -> Mapping[str, Any]:
    if strength is None:
        return {}
    if strength_of(pipe, {STRENGTH: strength}) is None:
        raise InputError(f"--strength {strength:g}: {type(pipe).__name__} takes none; leave it out")
    return {STRENGTH: strength}


def _times(around: EncoderDecoderCost, batch: int) -> EncoderDecoderCost:
    decoder = around.vae_decoder
    return replace(
        around,
        text_encoders={name: work * batch for name, work in around.text_encoders.items()},
        vae_decoder=None if decoder is None else decoder * batch,
    )
