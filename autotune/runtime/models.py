"""What a policy needs to know about a pipeline: its denoiser, its sizes, its fingerprints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autotune.core.errors import InputError, PolicyError
from autotune.core.fingerprint import fingerprint
from autotune.pipelines.card import ModelCard, read_card
from autotune.pipelines.families import CallSignature, LatentSize, check_tested, family_of
from autotune.policy import ModelInfo, Policy
from autotune.runtime.schedulers import check_scheduler


def fingerprint_of(part: Any) -> str:
    """The fingerprint of a denoiser's or a scheduler's config, which quantisation leaves as it is."""
    parameters = inspect.signature(type(part).__init__).parameters.values()
    config = {key: value for key, value in part.config.items() if key != "quantization_config"}
    return fingerprint(config, {p.name: p.default for p in parameters if p.default is not p.empty})


def denoiser_of(pipe: Any) -> nn.Module:
    """The module a pipeline calls once or twice a step: its ``unet`` or ``transformer``.

    Raises:
        InputError: the pipeline has neither.
    """
    return family_of(pipe).denoiser(pipe)


def root_of(denoiser: nn.Module) -> nn.Module:
    """The module itself, where ``torch.compile`` has wrapped it."""
    root: nn.Module = getattr(denoiser, "_orig_mod", denoiser)
    return root


def native_size(pipe: Any) -> tuple[int, int]:
    """Height and width in pixels that the pipeline makes when none are given."""
    return family_of(pipe).native_size(pipe)


def latents_of(
    pipe: Any,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    call: Mapping[str, Any] = {},
) -> LatentSize:
    """Size of the latents for pictures of ``height`` x ``width`` pixels and ``frames``, by default the native ones.

    Args:
        call: arguments of the pipeline's call besides those that the model recommends (``use_resolution_binning``).
    """
    family = family_of(pipe)
    if height is None or width is None:
        native = family.native_size(pipe)
        height, width = height or native[0], width or native[1]
    frames = frames or family.default_frames(pipe)
    return family.latent_size(pipe, height, width, frames, {**recommended(pipe).call, **call})


def text_length(pipe: Any, call: Mapping[str, Any] = {}) -> int:
    """Number of text tokens the denoiser attends to when the pipeline pads every prompt; see :func:`latents_of`."""
    return family_of(pipe).text_tokens(pipe, {**recommended(pipe).call, **call})


def recommended(pipe: Any) -> ModelCard:
    """What the card in the model's folder says of it; nothing where there is none.

    Raises:
        InputError: the card cannot be used.
    """
    folder = str(getattr(pipe, "config", {}).get("_name_or_path") or "")
    return read_card(Path(folder)) if folder else ModelCard()


def scale_argument(pipe: Any, signature: CallSignature) -> str | None:
    """The argument that a guidance scale is meant for: that which this very model heeds; None where there is none."""
    embeds = getattr(root_of(denoiser_of(pipe)).config, "guidance_embeds", False)
    if signature.guidance_argument is None or (embeds and signature.embedded_guidance is not None):
        return signature.embedded_guidance
    return signature.guidance_argument


def default_steps(pipe: Any) -> int:
    """Steps of the full run: what the model recommends, else what the pipeline's ``__call__`` defaults to."""
    own = recommended(pipe).full_steps
    return int(own or inspect.signature(pipe.__call__).parameters["num_inference_steps"].default)


def describe_model(pipe: Any, full_steps: int | None = None) -> ModelInfo:
    """Names, fingerprints and native size of a pipeline, as a policy records them.

    Raises:
        InputError: a part of it is missing.
    """
    if getattr(pipe, "scheduler", None) is None:
        raise InputError(f"{type(pipe).__name__} has no scheduler: load the pipeline with its scheduler")
    denoiser = root_of(denoiser_of(pipe))
    height, width = native_size(pipe)
    return ModelInfo(
        pipeline=type(pipe).__name__,
        denoiser=type(denoiser).__name__,
        denoiser_fingerprint=fingerprint_of(denoiser),
        scheduler=type(pipe.scheduler).__name__,
        scheduler_fingerprint=fingerprint_of(pipe.scheduler),
        height=height,
        width=width,
        full_steps=full_steps or default_steps(pipe),
    )


def full_policy(pipe: Any, steps: int | None = None) -> Policy:
    """The policy that changes nothing: native size, guidance throughout, every unit computed.

    ``steps`` defaults to what the model recommends, else to the pipeline's own default.

    Example:
        >>> autotune.full_policy(autotune.demo_pipeline()).id
        's20'
    """
    info = describe_model(pipe, steps)
    return Policy(steps=info.full_steps, model=info)


def check_no_other_cache(denoiser: nn.Module) -> None:
    """Refuse to run under a policy and a cache of diffusers (``enable_cache``) at once: neither would do what it says.

    Raises:
        InputError: such a cache is enabled.
    """
    plain: Any = root_of(denoiser)
    if getattr(plain, "is_cache_enabled", False):
        raise InputError(
            f"this pipeline's {type(plain).__name__} already has a cache of diffusers enabled, and no policy plans"
            " what that computes: call its disable_cache() first"
        )


def check_fields(pipe: Any, policy: Policy) -> None:
    """Refuse what a policy does and this class of pipelines cannot follow.

    Raises:
        PolicyError: in one sentence that names the field and says why.
    """
    for field, reason in family_of(pipe).refuses.items():
        if getattr(policy, field):
            raise PolicyError(f"{type(pipe).__name__} runs under no policy with {field}: {reason}; leave {field} out")


def check_compatible(pipe: Any, policy: Policy, *, strict: bool = True) -> None:
    """Refuse a pipeline that is not tested, and a policy made for another model or scheduler, naming the difference.

    ``strict=False`` accepts other fingerprints of the same classes (a fine-tune with an edited config), and pipelines
    that are not tested.

    Raises:
        PolicyError: pipeline, denoiser or scheduler differ from what the policy was made for, or the pipeline cannot
            follow the policy.
        InputError: the pipeline is not tested (:func:`autotune.pipelines.families.check_tested`), the scheduler is of
            a class that is not supported, or another cache is enabled.
    """
    if strict:
        check_tested(pipe)
    check_fields(pipe, policy)
    check_scheduler(pipe.scheduler)
    check_no_other_cache(denoiser_of(pipe))
    if policy.model is None:
        return
    here = describe_model(pipe, policy.model.full_steps)
    fields = ["pipeline", "denoiser", "scheduler"]
    if strict:
        fields += ["denoiser_fingerprint", "scheduler_fingerprint"]
    for field in fields:
        expected, found = getattr(policy.model, field), getattr(here, field)
        if expected != found:
            hint = "; strict=False accepts a fine-tune with another config" if field.endswith("fingerprint") else ""
            raise PolicyError(
                f"the policy was made for another model: its {field.replace('_', ' ')} is {expected!r},"
                f" this pipeline's is {found!r}{hint}"
            )
