"""The policy file as a JSON Schema, for editors and for programs that know nothing of Python.

A schema sees the form of a file. What depends on other fields' values (steps that exist, scales that grow, the
checksum) and what depends on the model is for :func:`autotune.load_policy` and :func:`autotune.apply_policy`.
"""

from __future__ import annotations

from typing import Any

from autotune.core.interval import Interval
from autotune.core.records import Record
from autotune.policy.canonical import MAX_BYTES
from autotune.policy.document import FORMAT, VERSIONS
from autotune.policy.policy import Policy
from autotune.policy.policy_set import MAX_TIERS, SET_FORMAT, SET_VERSIONS, TIER_PATTERN
from autotune.policy.records import (
    Certificate,
    ContenderQuality,
    MeasuredTime,
    ModelInfo,
    PolicyCost,
    PolicyQuality,
    PredictedTime,
    Provenance,
)
from autotune.policy.techniques import CacheRule, Guidance, ResolutionStage, SchedulerChoice

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ID = f"urn:{FORMAT}:{VERSIONS[-1]}"

# What each field says, with its unit. Steps and calls count from 0.
DESCRIPTIONS: dict[type[Record], dict[str, str]] = {
    Policy: {
        "format": "Names the kind of file.",
        "version": "Version of the format; a reader refuses those it does not know.",
        "model": "What the policy was made for; null fits any model that has the units it names.",
        "steps": "Denoising steps of a picture.",
        "scheduler": "Another solver than the pipeline's own; null keeps that.",
        "timesteps": "Spacing of the timesteps by name ('default' is the scheduler's own), or one timestep per step,"
        " decreasing.",
        "sigmas": "Noise levels instead, one per step, decreasing, as the scheduler counts them; null follows"
        " timesteps.",
        "resolution": "Stages that run on smaller latents, in order; after the last the latents have full size.",
        "guidance": "When classifier-free guidance runs; null is at every step.",
        "cache": "Units that reuse what they computed before, and when they compute.",
        "budget": "The budget the policy was searched within, such as '40%' or '850ms'.",
        "cost": "What the policy costs, against the full run.",
        "quality": "What was measured on held-out prompts.",
        "provenance": "Where the policy comes from.",
    },
    ModelInfo: {
        "pipeline": "Class of the diffusers pipeline.",
        "denoiser": "Class of its U-Net or transformer.",
        "denoiser_fingerprint": "Hash of the denoiser's config, not of its weights.",
        "scheduler": "Class of the pipeline's own scheduler.",
        "scheduler_fingerprint": "Hash of that scheduler's config.",
        "height": "Native height of a picture in pixels.",
        "width": "Native width of a picture in pixels.",
        "full_steps": "Steps of the full run that costs and quality are relative to.",
    },
    SchedulerChoice: {
        "name": "Class of the solver in diffusers.",
        "config": "What is set besides the pipeline's own scheduler config.",
    },
    ResolutionStage: {
        "scale": "Side of the latents as a share of the full side, above 0 and below 1; grows from stage to stage.",
        "until_step": "First step after the stage.",
        "handoff": "How the latents grow: 'renoise' predicts the picture and adds fresh noise, 'noise_matched' keeps"
        " the low frequencies of the noise.",
    },
    Guidance: {
        "start_step": "First step with guidance.",
        "stop_step": "First step without it again.",
        "after": "What else happens from stop_step on: 'cross_attention' units then reuse their last output.",
        "compute_steps": "Steps at which the unconditional branch is computed, increasing, the first being start_step;"
        " at the others the last difference of the branches is used again; left out where these are all of them (else"
        " version 3).",
        "factor": "What guidance adds is multiplied by this: a guidance scale s counts as 1 + factor * (s - 1); left"
        " out where it is 1 (else version 4).",
    },
    CacheRule: {
        "units": "Module names of the denoiser ('up_blocks.1'), ranges ('transformer_blocks.3-10') or patterns"
        " ('**.attn2').",
        "mode": "What a unit gives when it does not compute: its last output ('reuse'), its input plus its last change"
        " ('residual'), or an extrapolation ('forecast').",
        "order": "Degree of the extrapolation in mode 'forecast', and from version 2 on of the last changes in mode"
        " 'residual'; else null.",
        "compute_steps": "Steps at which the units compute, increasing, the first being 0.",
        "weights": "For every step not in compute_steps, in order, weights of the last computed results, the newest"
        " first, whose weighted sum the step takes; instead of an order (version 3), else left out.",
    },
    PolicyCost: {
        "flops": "Floating-point operations of the denoising loop for one picture, two per multiply-add.",
        "macs_conv_linear": "Multiply-adds of its convolutions and linear layers alone, as papers count them.",
        "relative": "flops as a share of the full run's.",
        "cache_bytes": "Most bytes kept at once for reuse, for one picture.",
        "predicted": "Times by hardware profiles.",
        "measured": "Times taken.",
    },
    PredictedTime: {
        "device": "The hardware by name.",
        "dtype": "Precision that the profile was taken in.",
        "compile": "Mode of torch.compile that the profile was taken with, or 'none'.",
        "batch_size": "Pictures in a call.",
        "ms": "Milliseconds of a pipeline call.",
        "relative": "ms as a share of the full run's.",
        "profile": "Date of the profile.",
    },
    MeasuredTime: {
        "device": "The hardware by name.",
        "batch_size": "Pictures in a call.",
        "ms_per_image": "Milliseconds of a pipeline call, per picture.",
        "relative": "The same as a share of the full run's, taken alternately.",
    },
    Interval: {
        "value": "What was measured.",
        "low": "Lower end of its 95 % confidence interval.",
        "high": "Upper end of its 95 % confidence interval.",
    },
    ContenderQuality: {
        "loss": "What the search lowers: 0 is the full run, 1 is lost; lower is better.",
        "distance": "Distance of the pictures' features to the reference's; lower is better.",
        "alignment": "Mean cosine of pictures and prompts; higher is better; null where there were none (version 2).",
        "fidelity": "Mean distance of the pictures' features to the full run's, one minus cosine; lower is nearer.",
        "error": "Mean difference of the pictures from the exact run's with the same guidance; 0 is that run, 1 its"
        " coarse pictures; lower is better; left out where nobody measured it (else version 2).",
    },
    PolicyQuality: {
        "prompts": "Held-out inputs, such as prompts.",
        "images": "Pictures of each run, of these inputs.",
        "scorer": "The image-text model; null where it had nothing to judge (version 2).",
        "network": "The network whose features the distance is taken in; null is the scorer's.",
        "estimator": "Estimator of the distance.",
        "weights": "Weights of the objective's terms.",
        "guidance_scale": "Guidance scale of the pictures; null is the pipeline's default.",
        "policy": "Scores of the policy.",
        "full": "Scores of the full run.",
        "fewer_steps": "Scores of fewer steps at the same cost.",
        "fewer_steps_count": "How many steps these are.",
        "fewer_steps_policy": "Id of these fewer steps; null where they are the pipeline's own (version 2).",
        "difference": "loss(policy) - loss(fewer steps), paired by prompt; better with confidence where all of it is"
        " below 0.",
        "certificate": "The floor that the policy was chosen to hold; left out where none was asked for (else version"
        " 2).",
    },
    Certificate: {
        "max_loss": "The most that the loss may be; null is no such floor.",
        "max_change": "The most that pictures may change, in the unit of --objective fidelity; null is no such floor.",
        "loss": "Held-out loss as it was tested, its upper end at most max_loss.",
        "change": "Held-out change as it was tested, its upper end at most max_change.",
        "level": "What the intervals hold with.",
    },
    Provenance: {
        "study": "Name of the Optuna study.",
        "trial": "Number of the trial in it.",
        "seed": "Seed of the search.",
        "date": "Day of the export.",
        "versions": "Versions of the libraries that measured, by name.",
        "checksum": "Hash of the whole file except this field; null in files written by hand.",
    },
}

_HAS_ORDER = {"properties": {"order": {"type": "integer"}}, "required": ["order"]}
_HAS_WEIGHTS = {"properties": {"weights": {"type": "array"}}, "required": ["weights"]}
_EXTRAPOLATION_GOES_WITH_MODE = {
    "not": {"allOf": [_HAS_ORDER, _HAS_WEIGHTS]},
    "if": {"properties": {"mode": {"const": "forecast"}}, "required": ["mode"]},
    "then": {"anyOf": [_HAS_ORDER, _HAS_WEIGHTS]},
    "else": {
        "if": {"properties": {"mode": {"const": "residual"}}, "required": ["mode"]},
        "else": {"properties": {"order": {"type": "null"}, "weights": {"type": "null"}}},
    },
}
_SIGMAS_GO_WITH_DEFAULT = {
    "if": {"properties": {"sigmas": {"type": "array"}}, "required": ["sigmas"]},
    "then": {"properties": {"timesteps": {"const": "default"}}},
}


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a policy file, versions 1 to 3: what ``postdiff schema`` prints.

    Every policy that :func:`autotune.load_policy` accepts is valid under it. The reverse holds for the form only:
    the module's docstring says what a schema cannot see.

    Example:
        >>> schema = autotune.policy_schema()
        >>> schema["properties"]["steps"]["description"]
        'Denoising steps of a picture.'
    """
    schema = Policy.model_json_schema()
    records = schema["$defs"]
    for described, descriptions in DESCRIPTIONS.items():
        properties = (schema if described is Policy else records[described.__name__])["properties"]
        for field, description in descriptions.items():
            properties[field]["description"] = description
            # pydantic's titles repeat the names.
            properties[field].pop("title", None)
    for record in records.values():
        record["description"] = " ".join(record["description"].replace("``", "'").split())
    # pydantic says what keys of the right form hold, and leaves others free.
    for record, field in (("PolicyQuality", "weights"), ("Provenance", "versions"), ("SchedulerChoice", "config")):
        records[record]["properties"][field]["additionalProperties"] = False
    records["CacheRule"] |= _EXTRAPOLATION_GOES_WITH_MODE
    records["CacheRule"]["properties"]["compute_steps"] |= {"uniqueItems": True, "prefixItems": [{"const": 0}]}
    for form in records["Guidance"]["properties"]["compute_steps"]["anyOf"]:
        if form.get("type") == "array":
            form["uniqueItems"] = True
    about = {
        "$schema": DIALECT,
        "$id": ID,
        "title": "PostDiff policy",
        "description": f"What each denoising step of a diffusion pipeline computes. At most {MAX_BYTES} bytes of JSON.",
    }
    return about | {**schema, **about, **_SIGMAS_GO_WITH_DEFAULT, "required": ["format", "version", "steps"]}


def policies_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file of policies: what ``postdiff schema --tiers`` prints.

    Every set that :func:`autotune.load_policies` accepts is valid under it; the reverse holds for the form only.

    Example:
        >>> policies_schema()["properties"]["tiers"]["description"]
        'Policies by the names of their tiers; the full run is part of every set without being named.'
    """
    policy = policy_schema()
    records = policy.pop("$defs")
    for name in ("$schema", "$id"):
        del policy[name]
    return {
        "$schema": DIALECT,
        "$id": f"urn:{SET_FORMAT}:{SET_VERSIONS[-1]}",
        "title": "PostDiff policies",
        "description": f"Policies for one model, by tier. At most {MAX_BYTES} bytes of JSON a tier.",
        "type": "object",
        "properties": {
            "format": {"const": SET_FORMAT, "description": "Names the kind of file.", "type": "string"},
            "version": {
                "enum": list(SET_VERSIONS),
                "description": "Version of the format; a reader refuses those it does not know.",
                "type": "integer",
            },
            "tiers": {
                "description": "Policies by the names of their tiers; the full run is part of every set without being"
                " named.",
                "type": "object",
                "minProperties": 1,
                "maxProperties": MAX_TIERS,
                "patternProperties": {TIER_PATTERN: {"$ref": "#/$defs/Policy"}},
                "additionalProperties": False,
            },
        },
        "required": ["format", "version", "tiers"],
        "additionalProperties": False,
        "$defs": records | {"Policy": policy},
    }
