"""The policy: what each denoising step computes, as a small, strict, human-readable JSON file.

A policy is data. It knows nothing of torch; :mod:`autotune.plan` makes it explicit against
one denoiser, and :mod:`autotune.runtime` executes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autotune.errors import PolicyError, did_you_mean

FORMAT: Literal["postdiff-policy"] = "postdiff-policy"
VERSION: Literal[1] = 1
MAX_BYTES = 8 * 1024
MAX_STEPS = 1000

StepIndex = Annotated[int, Field(ge=0, le=MAX_STEPS)]
Text = Annotated[str, Field(max_length=200)]
Pixels = Annotated[int, Field(ge=8, le=16384)]


class _Record(BaseModel):
    """Frozen, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelInfo(_Record):
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


class ResolutionStage(_Record):
    """Steps before ``until_step`` (and after the previous stage) run at ``scale`` per side.

    ``handoff="renoise"`` is PostDiff's (section 3.1): predict x0 from the last step of the
    stage, resize it bilinearly in latent space and add fresh noise for the next timestep.
    """

    scale: Annotated[float, Field(gt=0, lt=1)]
    until_step: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    handoff: Literal["renoise"] = "renoise"


class Guidance(_Record):
    """Classifier-free guidance runs for steps in ``[start_step, stop_step)`` only.

    Outside of it the conditional branch alone is computed, as if the guidance scale were 1.
    """

    start_step: StepIndex = 0
    stop_step: StepIndex
    after: Literal["nothing"] = "nothing"


class CacheRule(_Record):
    """Units that compute at ``compute_steps`` and at every other step take what they computed before.

    A unit is a layer (``"up_blocks.1.resnets.0"``) or a whole block (``"up_blocks.1"``).
    What then feeds nothing is not computed either; nobody needs to list it.

    ``mode="reuse"`` takes the last computed output as it is. ``mode="forecast"`` extrapolates the
    last ``order + 1`` computed outputs to the present step by the polynomial through them, as
    TaylorSeer does with finite differences (Liu et al. 2025, section 3.2); while there are fewer,
    those.
    """

    units: Annotated[tuple[Text, ...], Field(strict=False, min_length=1, max_length=64)]
    mode: Literal["reuse", "forecast"] = "reuse"
    order: Annotated[int, Field(ge=1, le=2)] | None = None
    compute_steps: Annotated[tuple[StepIndex, ...], Field(strict=False, min_length=1, max_length=MAX_STEPS)]

    @model_validator(mode="after")
    def _ordered(self) -> CacheRule:
        if list(self.compute_steps) != sorted(set(self.compute_steps)):
            raise ValueError("compute_steps must be increasing, each step once")
        if self.compute_steps[0] != 0:
            raise ValueError("compute_steps must begin with 0: there is nothing to reuse at the first step")
        if (self.mode == "forecast") != (self.order is not None):
            raise ValueError("order is 1 or 2 in mode 'forecast' and null in mode 'reuse'")
        return self


class Interval(_Record):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class MeasuredTime(_Record):
    """Pipeline time against the full run, both taken alternately in one session."""

    device: Text
    batch_size: Annotated[int, Field(ge=1)]
    ms_per_image: Annotated[float, Field(gt=0)]
    relative: Annotated[float, Field(gt=0)]


class PolicyCost(_Record):
    """FLOPs of the denoising loop for one image (two per multiply-add) and what was measured."""

    flops: Annotated[int, Field(ge=0)]
    macs_conv_linear: Annotated[int, Field(ge=0)]
    relative: Annotated[float, Field(ge=0)]
    cache_bytes: Annotated[int, Field(ge=0)]
    measured: tuple[MeasuredTime, ...] = ()


class ContenderQuality(_Record):
    """Held-out scores of one run: objective (lower is better), Frechet distance, image-text cosine."""

    loss: Interval
    frechet: Interval
    alignment: Interval


class PolicyQuality(_Record):
    """Held-out quality of the policy, of the full run and of fewer steps at the same cost.

    ``difference`` is loss(policy) - loss(fewer steps), paired by prompt: the policy is better
    with confidence when its whole interval lies below zero. ``guidance_scale`` is the one the
    pictures were made with; None is the pipeline's default.
    """

    prompts: Annotated[int, Field(ge=1)]
    images: Annotated[int, Field(ge=1)]
    scorer: Text
    guidance_scale: float | None = None
    policy: ContenderQuality
    full: ContenderQuality
    fewer_steps: ContenderQuality
    fewer_steps_count: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    difference: Interval


class Provenance(_Record):
    """Where the policy comes from. ``checksum`` covers the whole file except itself."""

    study: Text | None = None
    trial: int | None = None
    seed: int | None = None
    date: Text | None = None
    versions: dict[Text, Text] = {}
    checksum: Text | None = None


class Policy(_Record):
    """What each denoising step computes, for one model. See the module docstring.

    Example:
        >>> from autotune import Policy
        >>> Policy(steps=20).id
        's20'
    """

    format: Literal["postdiff-policy"] = FORMAT
    version: Literal[1] = VERSION
    model: ModelInfo | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    timesteps: Literal["default"] = "default"
    resolution: Annotated[tuple[ResolutionStage, ...], Field(strict=False, max_length=8)] = ()
    guidance: Guidance | None = None
    cache: Annotated[tuple[CacheRule, ...], Field(strict=False, max_length=64)] = ()
    budget: Text | None = None
    cost: PolicyCost | None = None
    quality: PolicyQuality | None = None
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
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
        if self.guidance is not None and not self.guidance.start_step < self.guidance.stop_step <= self.steps:
            raise ValueError(
                f"guidance: [{self.guidance.start_step}, {self.guidance.stop_step}) is not an interval"
                f" within the {self.steps} steps"
            )
        for index, rule in enumerate(self.cache):
            if rule.compute_steps[-1] >= self.steps:
                raise ValueError(
                    f"cache.{index}.compute_steps: step {rule.compute_steps[-1]} does not exist,"
                    f" the last of {self.steps} steps is {self.steps - 1}"
                )
        return self

    @property
    def id(self) -> str:
        """Short and readable, for tables and file names: ``s20-r0.50@10-up_blocks.1i3-g15``.

        Steps; scale@until per stage; per rule the units and ``i`` interval, or ``n`` number of
        computing steps when they are not evenly spaced, and ``f`` order of a forecast; last guided step.
        """
        parts = [f"s{self.steps}"]
        parts += [f"r{stage.scale:.2f}@{stage.until_step}" for stage in self.resolution]
        for rule in self.cache:
            gaps = {b - a for a, b in zip(rule.compute_steps, rule.compute_steps[1:], strict=False)}
            spacing = f"i{gaps.pop()}" if len(gaps) == 1 else f"n{len(rule.compute_steps)}"
            forecast = f"f{rule.order}" if rule.order else ""
            parts.append("+".join(rule.units) + spacing + forecast)
        if self.guidance is not None:
            start = f"{self.guidance.start_step}:" if self.guidance.start_step else ""
            parts.append(f"g{start}{self.guidance.stop_step}")
        return "-".join(parts)

    @property
    def key(self) -> str:
        """A hash of what is executed: equal for policies that differ only in their records."""
        fields = {"steps", "timesteps", "resolution", "guidance", "cache"}
        return _digest(self.model_dump(mode="json", include=fields))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict that :func:`policy_from_dict` accepts."""
        return self.model_dump(mode="json")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON, whole or not at all, with a checksum over its content.

        Raises:
            PolicyError: the file would exceed 8 KB.
        """
        document = self.to_dict()
        provenance = document["provenance"] or Provenance().model_dump(mode="json")
        document["provenance"] = provenance | {"checksum": None}
        document["provenance"]["checksum"] = _digest(document)
        text = _to_json(document)
        if len(text.encode()) > MAX_BYTES:
            raise PolicyError(f"the policy takes {len(text.encode())} bytes, a policy file holds at most {MAX_BYTES}")
        write_atomically(Path(path), text)


def policy_from_dict(document: Mapping[str, Any], source: str = "policy") -> Policy:
    """Validate a dict strictly.

    Raises:
        PolicyError: one sentence naming the key, the value and the nearest valid choice.
    """
    if document.get("format") != FORMAT:
        raise PolicyError(f"{source}: not a policy file, its 'format' is not {FORMAT!r}")
    if document.get("version") != VERSION:
        raise PolicyError(
            f"{source}: policy version {document.get('version')!r} is unknown, this release reads {VERSION}"
        )
    try:
        # By way of JSON: lists become tuples under strict validation, everything else stays strict.
        policy = Policy.model_validate_json(json.dumps(document, allow_nan=False))
    except ValidationError as error:
        raise PolicyError(f"{source}: {_first_problem(error)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise PolicyError(f"{source}: not a JSON document: {error}") from None
    checksum = policy.provenance.checksum if policy.provenance else None
    if checksum is not None:
        content = policy.to_dict()
        content["provenance"]["checksum"] = None
        if checksum != _digest(content):
            raise PolicyError(
                f"{source}: changed after it was exported (its checksum does not match), so its cost and quality no"
                " longer describe it; export it again, or remove 'cost', 'quality' and 'provenance' to use it as new"
            )
    return policy


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """Load and validate a policy file.

    Raises:
        PolicyError: the file is missing, unreadable, too large, not JSON, or not a valid policy.
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{source}: cannot be read ({error.strerror or error})") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{source}: larger than the {MAX_BYTES} bytes a policy file may have")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise PolicyError(f"{source}: not a JSON file") from None
    if not isinstance(document, dict):
        raise PolicyError(f"{source}: not a policy file, it holds no JSON object")
    return policy_from_dict(document, source)


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` holds either its old content or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _to_json(document: Mapping[str, Any]) -> str:
    """One top-level key a line, so that a policy stays readable and long step lists stay short."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return f"{{\n{lines}\n}}\n"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        return f"unknown key {where!r}{did_you_mean(str(key), _keys_at(parents))}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    value = repr(problem["input"])
    shown = value if len(value) <= 40 else value[:37] + "..."
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} is {shown}: {message[0].lower()}{message[1:]}"


def _keys_at(location: list[int | str]) -> list[str]:
    """The valid keys of the record at ``location`` (indices in lists are skipped)."""
    record: type[BaseModel] = Policy
    for part in location:
        if isinstance(part, str) and part in record.model_fields:
            found = _record_in(record.model_fields[part].annotation)
            if found is None:
                return []
            record = found
    return list(record.model_fields)


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _record_in(argument)
        if found is not None:
            return found
    return None
