"""``postdiff price``: what a policy costs and where the cost goes, without running it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO, cast

from autotune.cli.models import DType, ModelSource
from autotune.core.faults import during
from autotune.policy import Policy

if TYPE_CHECKING:
    from autotune.cost.breakdown import Breakdown
    from autotune.cost.encoder_decoder import EncoderDecoderCost
    from autotune.cost.pricing import Cost
    from autotune.cost.profile import Profile


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
            | {"surroundings": asdict(self.encoder_decoder)}
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
    target: Profile | None = None,
) -> Quote:
    """Price ``policy`` in every detail.

    Args:
        model: what to call the pipeline.
        height, width: of the pictures, in pixels; the model's native size by default.
        batch: pictures in one call of the pipeline.
        guided: whether calls use classifier-free guidance; None is what the pipeline does by default.
        target: a hardware profile to predict milliseconds with.

    Raises:
        PolicyError: the policy does not fit the pipeline at this size.
        ProfileError: the profile is of something else, or has no times for this batch size.
    """
    from autotune.cost import Pricer
    from autotune.cost.breakdown import break_down
    from autotune.cost.encoder_decoder import encoder_decoder_cost
    from autotune.runtime.models import denoiser_of

    full_steps = policy.model.full_steps if policy.model else None
    pricer = Pricer(pipe, height, width, full_steps=full_steps, guided=guided, target=target)
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


def _times(around: EncoderDecoderCost, batch: int) -> EncoderDecoderCost:
    decoder = around.vae_decoder
    return replace(
        around,
        text_encoders={name: work * batch for name, work in around.text_encoders.items()},
        vae_decoder=None if decoder is None else decoder * batch,
    )


def print_price(
    source: ModelSource,
    policy: Policy,
    *,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    guided: bool | None = None,
    target: Profile | None = None,
    dtype: DType = "auto",
    as_json: bool = False,
    file: TextIO | None = None,
) -> None:
    """Price a policy on ``file``, by default stdout; see :func:`quote` for the arguments not named here.

    Args:
        dtype: precision of the model, which decides what kept features take; ``auto`` is the target's, if any.
        as_json: as a JSON document.
    """
    from autotune.cost.profile.environment import versions

    if dtype == "auto" and target is not None:
        dtype = cast(DType, target.dtype)
    with during("while loading the model"):
        pipe = source.outline(dtype)
    if target is not None:
        guided = target.model.guided if guided is None else guided
        for doubt in target.doubts(dtype=str(pipe.dtype).removeprefix("torch."), versions=versions()):
            print(f"postdiff: {doubt}", file=sys.stderr)
    found = quote(
        pipe, policy, model=source.name, height=height, width=width, batch=batch, guided=guided, target=target
    )
    if as_json:
        print(json.dumps(found.to_dict()), file=file)
        return

    from autotune.cli.price_text import print_quote

    print_quote(found, file)
