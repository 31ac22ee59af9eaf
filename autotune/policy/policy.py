"""The policy: what each denoising step computes, as a small, strict, human-readable JSON file.

A policy is data. It knows nothing of torch; :mod:`autotune.plan` makes it explicit against
one denoiser, and :mod:`autotune.runtime` executes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from autotune.core.errors import PolicyError
from autotune.core.records import (
    LISTED,
    MAX_TEXT,
    NAMED,
    ONE_LINE,
    Count,
    Record,
    Text,
    in_schema,
    one_line,
    read_document,
    refusal,
    shown,
    to_json,
    validated,
    write_atomically,
)

FORMAT: Literal["postdiff-policy"] = "postdiff-policy"
VERSIONS = (1, 2)
"""A file says the lowest that has what it says."""
MAX_BYTES = 8 * 1024
MAX_STEPS = 1000

MAX_ID = 120
MAX_TIMESTEP = 100_000
MAX_CONFIG_LIST = 16
# Larger whole numbers are not exact in every JSON reader.
MAX_CONFIG_NUMBER = 2**53

_RANGE = re.compile(r"(\d+)-(\d+)")
_NAME = r"\*{1,2}|[A-Za-z0-9_-]+"
_COMPONENT = re.compile(_NAME)
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CONFIG_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


def _whole(pattern: str) -> str:
    return f"^({pattern})$"


def _unit_form(name: str) -> str:
    """Only the form: which names a denoiser has is for its structure to say."""
    for component in name.split("."):
        if not _COMPONENT.fullmatch(component):
            raise ValueError(
                f"{shown(name)} is no unit, give module names joined by dots, such as 'up_blocks.1', a range"
                " 'transformer_blocks.3-10', or a pattern '**.attn2' ('*' is one name, '**' any number)"
            )
        ends = _RANGE.fullmatch(component)
        if ends and int(ends[2]) < int(ends[1]):
            raise ValueError(f"{shown(name)} is a range that ends before it starts, write {ends[2]}-{ends[1]}")
    return name


def _class_name(name: str) -> str:
    if not _CLASS_NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is not the name of a class, such as 'DPMSolverMultistepScheduler'")
    return name


def _config_key(key: str) -> str:
    if not _CONFIG_KEY.fullmatch(key):
        raise ValueError("not the name of a scheduler setting, such as 'use_karras_sigmas'")
    return key


def _config_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) > MAX_CONFIG_LIST or not all(_is_config_number(item) for item in value):
            raise ValueError(f"{shown(value)} is not a list of at most {MAX_CONFIG_LIST} finite numbers")
        return tuple(value)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return one_line(value)
    if value is None or isinstance(value, bool) or _is_config_number(value):
        return value
    raise ValueError(
        f"{shown(value)} is not a short text, true, false, null, a finite number (integers up to"
        f" {MAX_CONFIG_NUMBER}) or a list of at most {MAX_CONFIG_LIST} such numbers"
    )


def _is_config_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= MAX_CONFIG_NUMBER if isinstance(value, int) else math.isfinite(value)


def _kind_of_timesteps(value: Any) -> str | None:
    if isinstance(value, str):
        return NAMED
    return LISTED if isinstance(value, list | tuple) else None


StepIndex = Annotated[int, Field(ge=0, le=MAX_STEPS)]
Pixels = Annotated[int, Field(ge=8, le=16384)]
Integer = Annotated[int, Field(gt=-(2**64), lt=2**64)]
UnitName = Annotated[Text, AfterValidator(_unit_form), in_schema(pattern=_whole(rf"({_NAME})(\.({_NAME}))*"))]
ClassName = Annotated[Text, AfterValidator(_class_name), in_schema(pattern=_whole(_CLASS_NAME.pattern))]
ConfigKey = Annotated[str, AfterValidator(_config_key), in_schema(pattern=_whole(_CONFIG_KEY.pattern))]
ConfigValue = Annotated[
    bool | int | float | str | tuple[int | float, ...] | None,
    BeforeValidator(_config_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "number", "null"]},
                {"type": "string", "maxLength": MAX_TEXT, "pattern": ONE_LINE},
                {"type": "array", "items": {"type": "number"}, "maxItems": MAX_CONFIG_LIST},
            ]
        }
    ),
]
Spacing = Literal["default", "leading", "linspace", "trailing", "karras", "exponential", "beta"]
Timestep = Annotated[int, Field(ge=0, le=MAX_TIMESTEP)]
Sigma = Annotated[float, Field(gt=0)]
Timesteps = Annotated[
    Annotated[Spacing, Tag(NAMED)]
    | Annotated[tuple[Timestep, ...], Field(strict=False, max_length=MAX_STEPS), Tag(LISTED)],
    Discriminator(
        _kind_of_timesteps,
        custom_error_type="timesteps",
        custom_error_message="should be " + ", ".join(map(repr, get_args(Spacing))) + " or a list of timesteps",
    ),
]


class ModelInfo(Record):
    """What the policy was made for, and what its costs are relative to.

    Fingerprints are hashes of the configs that shape the computation, not of weights.
    ``full_steps`` is the number of steps of the *full run*: native size, guidance at every
    step, nothing reused.
    """

    pipeline: Text
    denoiser: Text
    denoiser_fingerprint: Text
    scheduler: Text
    scheduler_fingerprint: Text
    height: Pixels
    width: Pixels
    full_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]


class ResolutionStage(Record):
    """Steps before ``until_step`` (and after the previous stage) run at ``scale`` per side.

    ``handoff="renoise"`` is PostDiff's (section 3.1): predict x0 from the last step of the
    stage, resize it bilinearly in latent space and add fresh noise for the next timestep.
    ``handoff="noise_matched"`` keeps the low-frequency content of the noisy latents, fills only
    the new high frequencies with the call's initial noise, at the next timestep's own noise
    level (after SPEED, arXiv 2605.18736).
    """

    scale: Annotated[float, Field(gt=0, lt=1)]
    until_step: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    handoff: Literal["renoise", "noise_matched"] = "renoise"


class Guidance(Record):
    """Classifier-free guidance runs for steps in ``[start_step, stop_step)`` only.

    Outside of it the conditional branch alone is computed, as if the guidance scale were 1.
    ``after="cross_attention"`` also lets the cross-attention units reuse, from ``stop_step`` on,
    their last output of the conditional branch ("Cond" in PostDiff, section 3.2).
    """

    start_step: StepIndex = 0
    stop_step: StepIndex
    after: Literal["nothing", "cross_attention"] = "nothing"


class CacheRule(Record):
    """Units that compute at ``compute_steps`` and at every other step take what they computed before.

    A unit is a layer (``"up_blocks.1.resnets.0"``) or a whole block (``"up_blocks.1"``). An entry
    of ``units`` may also be a range of blocks (``"transformer_blocks.3-10"``, both ends included)
    or a pattern in which ``*`` stands for one path component and ``**`` for any number
    (``"**.attn2"``). What then feeds nothing is not computed either; nobody needs to list it.

    ``mode="reuse"`` takes the last computed output as it is. ``mode="residual"`` takes the last
    computed output minus its input, added to the present input (Delta-DiT, arXiv 2406.01125).
    ``mode="forecast"`` extrapolates the last ``order + 1`` computed outputs to the present step
    by the polynomial through them, as TaylorSeer does with finite differences (Liu et al. 2025,
    section 3.2); while there are fewer, those.
    """

    units: Annotated[tuple[UnitName, ...], Field(strict=False, min_length=1, max_length=64)]
    mode: Literal["reuse", "residual", "forecast"] = "reuse"
    order: Annotated[int, Field(ge=1, le=2)] | None = None
    compute_steps: Annotated[tuple[StepIndex, ...], Field(strict=False, min_length=1, max_length=MAX_STEPS)]

    @model_validator(mode="after")
    def _ordered(self) -> CacheRule:
        for before, step in pairwise(self.compute_steps):
            if step <= before:
                raise ValueError(f"compute_steps must be increasing, each step once: {step} follows {before}")
        if self.compute_steps[0] != 0:
            raise ValueError(
                f"compute_steps must begin with 0, not with {self.compute_steps[0]}:"
                " there is nothing to reuse at the first step"
            )
        if (self.mode == "forecast") != (self.order is not None):
            raise ValueError(
                f"order {shown(self.order)} does not go with mode {self.mode!r}: order is 1 or 2 in mode 'forecast'"
                " and null in mode 'reuse' or 'residual'"
            )
        return self


class SchedulerChoice(Record):
    """Another solver to run under, by class name, of the same prediction type as the pipeline's own.

    ``config`` holds what is set besides the pipeline's own scheduler config.
    """

    name: ClassName
    config: Annotated[dict[ConfigKey, ConfigValue], Field(max_length=32)] = {}


class Interval(Record):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class MeasuredTime(Record):
    """Pipeline time against the full run, both taken alternately in one session."""

    device: Text
    batch_size: Annotated[Count, Field(ge=1)]
    ms_per_image: Annotated[float, Field(gt=0)]
    relative: Annotated[float, Field(gt=0)]


class PredictedTime(Record):
    """Milliseconds of a pipeline call by a hardware profile, and as a share of the full run's.

    ``profile`` is the date of the profile, ``dtype`` and ``compile`` what it was taken with.
    """

    device: Text
    dtype: Text
    compile: Text
    batch_size: Annotated[Count, Field(ge=1)]
    ms: Annotated[float, Field(gt=0)]
    relative: Annotated[float, Field(gt=0)]
    profile: Text


class PolicyCost(Record):
    """FLOPs of the denoising loop for one image (two per multiply-add), and times predicted and measured."""

    flops: Count
    macs_conv_linear: Count
    relative: Annotated[float, Field(ge=0)]
    cache_bytes: Count
    predicted: Annotated[tuple[PredictedTime, ...], Field(strict=False)] = ()
    measured: Annotated[tuple[MeasuredTime, ...], Field(strict=False)] = ()


class ContenderQuality(Record):
    """Held-out scores of one run: objective, distance to the reference, image-text cosine, distance to the full run.

    ``fidelity`` is the mean distance of the pictures' features to the full run's, one minus their cosine. The
    cosine of ``alignment`` is better when it is higher, all others when they are lower; None where there were no
    prompts to match (version 2).
    """

    loss: Interval
    distance: Interval
    alignment: Interval | None
    fidelity: Interval


class PolicyQuality(Record):
    """Held-out quality of the policy, of the full run and of fewer steps at the same cost.

    ``difference`` is loss(policy) - loss(fewer steps), paired by prompt: the policy is better
    with confidence when its whole interval lies below zero. ``guidance_scale`` is the one the
    pictures were made with; None is the pipeline's default. ``scorer`` is the image-text model
    (None where it had nothing to judge; version 2), ``estimator`` the distance to the reference,
    taken in the features of ``network`` (None: the scorer's), ``weights`` those of the
    objective's terms.
    """

    prompts: Annotated[Count, Field(ge=1)]
    images: Annotated[Count, Field(ge=1)]
    scorer: Text | None
    network: Text | None = None
    estimator: Text
    weights: dict[Text, float]
    guidance_scale: float | None = None
    policy: ContenderQuality
    full: ContenderQuality
    fewer_steps: ContenderQuality
    fewer_steps_count: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    difference: Interval


class Provenance(Record):
    """Where the policy comes from. ``checksum`` covers the whole file except itself."""

    study: Text | None = None
    trial: Integer | None = None
    seed: Integer | None = None
    date: Text | None = None
    versions: dict[Text, Text] = {}
    checksum: Text | None = None


class Policy(Record):
    """What each denoising step computes, for one model. See the module docstring.

    ``timesteps`` names a spacing of the scheduler ("default" is its own) or lists one timestep
    per step; ``sigmas`` lists noise levels instead. ``scheduler`` replaces the pipeline's solver.

    Example:
        >>> rule = {"units": ["up_blocks.1"], "compute_steps": [0, 3, 6, 9]}
        >>> policy = autotune.Policy(steps=12, cache=[rule], guidance={"stop_step": 8})
        >>> policy.id
        's12-up_blocks.1i3-g8'
        >>> policy.to_dict()["guidance"]
        {'start_step': 0, 'stop_step': 8, 'after': 'nothing'}
    """

    format: Literal["postdiff-policy"] = FORMAT
    version: Literal[1, 2] = 1
    model: ModelInfo | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    scheduler: SchedulerChoice | None = None
    timesteps: Timesteps = "default"
    sigmas: Annotated[tuple[Sigma, ...], Field(strict=False, max_length=MAX_STEPS)] | None = None
    resolution: Annotated[tuple[ResolutionStage, ...], Field(strict=False, max_length=8)] = ()
    guidance: Guidance | None = None
    cache: Annotated[tuple[CacheRule, ...], Field(strict=False, max_length=64)] = ()
    budget: Text | None = None
    cost: PolicyCost | None = None
    quality: PolicyQuality | None = None
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        self._check_schedule()
        self._check_resolution()
        self._check_guidance()
        if self.version < lowest_version(self.quality):
            raise ValueError("quality: without an alignment or a scorer it is of version 2, say so in version")
        for index, rule in enumerate(self.cache):
            if rule.compute_steps[-1] >= self.steps:
                raise ValueError(
                    f"cache.{index}.compute_steps: step {rule.compute_steps[-1]} does not exist,"
                    f" the last of {self.steps} steps is {self.steps - 1}"
                )
        return self

    def _check_schedule(self) -> None:
        if not isinstance(self.timesteps, str):
            _check_decreasing("timesteps", self.timesteps, self.steps)
        if self.sigmas is not None:
            if self.timesteps != "default":
                raise ValueError(
                    f"sigmas: given together with timesteps {shown(self.timesteps)}, either alone fixes the noise"
                    " levels: leave one out"
                )
            _check_decreasing("sigmas", self.sigmas, self.steps)

    def _check_resolution(self) -> None:
        scale, until = 0.0, 0
        for stage in self.resolution:
            if stage.until_step <= until or stage.until_step >= self.steps:
                raise ValueError(
                    f"resolution: until_step {stage.until_step} must lie after {until} and before the last step,"
                    f" at most {self.steps - 1}"
                )
            if stage.scale <= scale:
                raise ValueError(f"resolution: scales must grow, {stage.scale:g} follows {scale:g}")
            scale, until = stage.scale, stage.until_step

    def _check_guidance(self) -> None:
        if self.guidance is None:
            return
        start, stop = self.guidance.start_step, self.guidance.stop_step
        if not start < stop <= self.steps:
            raise ValueError(f"guidance: [{start}, {stop}) is not an interval within the {self.steps} steps")
        if self.guidance.after != "nothing" and stop == self.steps:
            raise ValueError(
                f"guidance.after is {self.guidance.after!r}: no step follows stop_step {stop}, use 'nothing', or a"
                f" stop_step of at most {self.steps - 1}"
            )

    @property
    def id(self) -> str:
        """Short and readable, for tables and file names: ``s20-r0.50@10-up_blocks.1i3-g15``.

        Steps, ``@`` another solver, ``ts-`` timesteps or ``sigmas``; scale@until per stage, with
        ``~`` when noise-matched; per rule the units (``each`` and ``all`` for ``*`` and ``**``) and
        ``i`` interval, or ``n`` number of computing steps when they are not evenly spaced, then
        ``x`` for residual, ``f`` order of a forecast; guided steps, with ``+ca`` when
        cross-attention is reused after them. At most 120 characters: a longer one ends in a hash.
        """
        solver = f"@{self.scheduler.name.removesuffix('Scheduler')}" if self.scheduler else ""
        parts = [f"s{self.steps}{solver}"]
        if self.timesteps != "default":
            parts.append(f"ts-{self.timesteps if isinstance(self.timesteps, str) else 'list'}")
        if self.sigmas is not None:
            parts.append("sigmas")
        for stage in self.resolution:
            matched = "~" if stage.handoff == "noise_matched" else ""
            parts.append(f"r{stage.scale:.2f}@{stage.until_step}{matched}")
        parts += [_rule_id(rule) for rule in self.cache]
        if self.guidance is not None:
            start = f"{self.guidance.start_step}_" if self.guidance.start_step else ""
            after = "+ca" if self.guidance.after == "cross_attention" else ""
            parts.append(f"g{start}{self.guidance.stop_step}{after}")
        text = "-".join(parts)
        return text if len(text) <= MAX_ID else f"{text[: MAX_ID - 9]}-{self.key[:8]}"

    @property
    def key(self) -> str:
        """A hash of what is executed: equal for policies that differ only in their records."""
        fields = {"steps", "scheduler", "timesteps", "sigmas", "resolution", "guidance", "cache"}
        return _digest(self.model_dump(mode="json", include=fields))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that :func:`policy_from_dict` accepts."""
        return self.model_dump(mode="json")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON, whole or not at all, with a checksum over its content.

        Raises:
            PolicyError: the file would exceed 8 KB.

        Example:
            >>> autotune.Policy(steps=8).save("policy.json")
            >>> autotune.load_policy("policy.json").id
            's8'
        """
        write_atomically(Path(path), self.to_text())

    def to_text(self) -> str:
        """What :meth:`save` writes."""
        document = self.to_dict()
        provenance = document["provenance"] or Provenance().model_dump(mode="json")
        document["provenance"] = provenance | {"checksum": None}
        document["provenance"]["checksum"] = _digest(document)
        text = to_json(document)
        if len(text.encode()) > MAX_BYTES:
            raise PolicyError(f"the policy takes {len(text.encode())} bytes, a policy file holds at most {MAX_BYTES}")
        return text

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        private: bool | None = None,
        filename: str = "policy.json",
        commit_message: str | None = None,
    ) -> str:
        """Upload the policy to the Hugging Face Hub, where ``load_policy("user/repo")`` finds it.

        One commit: the file as :meth:`save` writes it, and where the repository has no README.md one made from the
        policy's records.

        Args:
            repo_id: ``user/repo``; it is created where it does not exist.
            token: of an account that may write there; None is the one of ``hf auth login`` or ``HF_TOKEN``.
            private: whether a new repository is; None is the account's default.
            filename: in the repository.
            commit_message: None names the policy.

        Returns:
            The commit's address; its last part is a ``revision`` for :func:`autotune.load_policy`.

        Raises:
            PolicyError: the file would exceed 8 KB.
            InputError: ``repo_id`` or ``filename`` is none, or the Hub refuses.

        Example:
            >>> autotune.Policy(steps=12).push_to_hub("user/twelve-steps")
            'http.../user/twelve-steps/commit/...'
        """
        from autotune.policy.hub import push

        return push(self, repo_id, token=token, private=private, filename=filename, commit_message=commit_message)


def policy_from_dict(document: Mapping[str, Any], source: str = "policy") -> Policy:
    """Validate a dict strictly.

    Raises:
        PolicyError: one sentence naming the key, the value and the nearest valid choice.
    """
    refuse = refusal(source, PolicyError)
    named, version = document.get("format"), document.get("version")
    if not isinstance(named, str) or named != FORMAT:
        raise refuse(f"not a policy file, its 'format' is not {FORMAT!r}")
    if type(version) is not int or version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise refuse(f"policy version {shown(version)} is unknown, this release reads {known}")
    policy = validated(Policy, document, refuse)
    checksum = policy.provenance.checksum if policy.provenance else None
    if checksum is not None:
        content = policy.to_dict()
        content["provenance"]["checksum"] = None
        if checksum != _digest(content):
            raise refuse(
                "changed after it was exported (its checksum does not match), so its cost and quality no longer"
                " describe it; export it again, or remove 'cost', 'quality' and 'provenance' to use it as new",
            )
    return policy


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """Load and validate a policy file.

    Raises:
        PolicyError: the file is missing, unreadable, too large, not JSON, or not a valid policy.
    """
    return policy_from_dict(read_document(path, MAX_BYTES, "policy", PolicyError), str(path))


def lowest_version(quality: PolicyQuality | None) -> Literal[1, 2]:
    """The version of the format that has what the records say."""
    if quality is None:
        return 1
    scores = (quality.policy, quality.full, quality.fewer_steps)
    return 2 if quality.scorer is None or any(each.alignment is None for each in scores) else 1


def _check_decreasing(key: str, values: tuple[int, ...] | tuple[float, ...], steps: int) -> None:
    if len(values) != steps:
        raise ValueError(f"{key}: {len(values)} values for {steps} steps, give one per step")
    for index, (before, value) in enumerate(pairwise(values), start=1):
        if value >= before:
            raise ValueError(f"{key}.{index} is {value:.6g}: must be below the {before:.6g} before it")


def _rule_id(rule: CacheRule) -> str:
    gaps = {b - a for a, b in pairwise(rule.compute_steps)}
    spacing = f"i{gaps.pop()}" if len(gaps) == 1 else f"n{len(rule.compute_steps)}"
    how = {"reuse": "", "residual": "x", "forecast": f"f{rule.order}"}[rule.mode]
    # No file name on Windows holds a star.
    units = "+".join(rule.units).replace("**", "all").replace("*", "each")
    return units + spacing + how


def _digest(document: Mapping[str, Any]) -> str:
    # Keys that came later count only where they are used: files and studies from before stay as they are.
    counted = {key: value for key, value in document.items() if value is not None or key not in ("scheduler", "sigmas")}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
