"""How the pictures of a search are made: by one pipeline, at one size and guidance scale, in batches of one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.core.errors import InputError, reason_of
from autotune.core.faults import during, out_of_memory
from autotune.evaluation.evaluator import Pictures
from autotune.evaluation.inputs import Inputs, Row
from autotune.evaluation.pictures import picture_batches
from autotune.pipelines.families import CallSignature, family_of
from autotune.policy import MAX_STEPS, Policy
from autotune.runtime import applied
from autotune.runtime.apply import applied_sharing, runs_under_policies
from autotune.runtime.models import native_size, recommended, scale_argument
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.rehearsal import check_runs
from autotune.runtime.strength import STRENGTH, fewest_steps, skipped_steps, strength_of

# What a call must take, for a search sets it in every one.
_SET = ("num_inference_steps", "generator", "output_type")


@dataclass(frozen=True)
class PictureMaker:
    """Makes pictures under policies.

    Attributes:
        pipe: The diffusers pipeline.
        height: Pixels.
        width: Pixels.
        guidance_scale: Of classifier-free guidance, or as the denoiser's mere input; None where there is none.
        batch_size: Pictures per pipeline call.
        prefixes: What calls under other policies began with, to go on from; None makes every call from its start.
        call: Further arguments of every call.
        negative: Whether every picture has a negative prompt, without which some pipelines have no guidance.
    """

    pipe: Any
    height: int
    width: int
    guidance_scale: float | None
    batch_size: int
    prefixes: PrefixCache | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    negative: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, as Pillow has them."""
        return self.width, self.height

    @property
    def guided(self) -> bool:
        """Whether calls use classifier-free guidance; some models take the scale as a mere input."""
        signature = _signature(self.pipe)
        arguments = dict(self.call)
        scale = scale_argument(self.pipe, signature)
        if scale is not None and self.guidance_scale is not None:
            arguments[scale] = self.guidance_scale
        return signature.guided(arguments | ({"negative_prompt": ""} if self.negative else {}))

    @property
    def priced(self) -> Mapping[str, Any]:
        """What of a call's arguments bears on its cost, see :class:`autotune.cost.Pricer`."""
        strength = strength_of(self.pipe, self.call)
        return self.call if strength is None else {**self.call, STRENGTH: strength}

    @property
    def fewest_steps(self) -> int:
        """Steps of which a call executes at least one; image-to-image leaves out the first."""
        return fewest_steps(self.pipe, strength_of(self.pipe, self.call))

    def check(self, policy: Policy) -> None:
        """Find out now whether the pipeline runs under the policy, not after files were written.

        Raises:
            InputError: it does not.
        """
        strength = strength_of(self.pipe, self.call)
        if skipped_steps(self.pipe, policy.steps, strength) >= policy.steps:
            raise InputError(
                f"a strength of {strength:g} leaves none of {policy.steps} steps; give a greater one, or"
                f" {self.fewest_steps} steps or more"
            )
        check_runs(self.pipe, policy, self.height, self.width, call=self.call)

    def try_out(self, policy: Policy, row: Row) -> None:
        """Make a picture now, for a pipeline's own checks may refuse what a row gives it.

        Raises:
            InputError: it refuses.
            Exception: A fault of the machine's, such as too little memory, of which the inputs are innocent.
        """
        steps = policy.model_copy(update={"steps": min(policy.steps, max(2, self.fewest_steps))})
        try:
            with during("while trying out the inputs"):
                for _ in replace(self, prefixes=None).pictures(steps, [row], [0]):
                    pass
        except InputError:
            raise
        except Exception as error:  # Pipelines refuse with exceptions of any class.
            if out_of_memory(error) or isinstance(error, OSError):
                raise
            raise InputError(
                f"{type(self.pipe).__name__} cannot make a picture of the input {row.label!r} ({reason_of(error)});"
                " change the inputs"
            ) from error

    def pictures(
        self,
        policy: Policy,
        rows: Sequence[Row],
        seeds: Sequence[int],
        on_batch: Callable[[int], None] | None = None,
    ) -> Pictures:
        """Pictures (n, 3, H, W) uint8 of rows with one seed each, in batches.

        Args:
            policy: What they are made under.
            rows: What the pipeline is asked for.
            seeds: As many.
            on_batch: Called with the number of pictures made so far.
        """
        with self._callable(policy) as call:
            yield from picture_batches(
                self.pipe,
                rows,
                seeds,
                height=self.height,
                width=self.width,
                guidance_scale=self.guidance_scale,
                batch_size=self.batch_size,
                shared=self.call,
                on_batch=on_batch,
                call=call,
            )

    def _callable(self, policy: Policy) -> AbstractContextManager[Callable[..., Any]]:
        """The pipeline under the policy."""
        if self.prefixes is None:
            return applied(self.pipe, policy)
        return applied_sharing(self.pipe, policy, self.prefixes)


def picture_maker(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    prefixes: PrefixCache | None = None,
    inputs: Inputs | None = None,
) -> PictureMaker:
    """A maker of pictures; what is None is the model's own: native size and recommended, else default, guidance.

    With ``prefixes`` pictures under policies that begin alike share that; they are the same to the bit.

    Raises:
        InputError: the pipeline makes no pictures of that size or none at all, takes no such guidance, runs under a
            policy already, or is not supported.
    """
    if not 1 <= batch_size <= MAX_STEPS:
        raise InputError(f"batch_size is {batch_size}; give a number from 1 to {MAX_STEPS}")
    if runs_under_policies(pipe):
        raise InputError("the pipeline already runs under a policy; call autotune.remove_policy(pipe) first")
    refused = family_of(pipe).not_tuned
    if refused:
        raise InputError(f"{type(pipe).__name__} {refused}: policies for it are priced and run, but made by hand")
    signature = _signature(pipe)
    missing = [name for name in _SET if name not in signature.takes]
    if missing:
        raise InputError(f"{type(pipe).__name__} takes no {' and no '.join(missing)}, which its call needs to be tuned")
    height, width = _size(pipe, signature, height, width)
    inputs = inputs or Inputs(())
    negative = bool(inputs.rows) and "negative_prompt" in inputs.rows[0].arguments
    scale, call = _guidance(pipe, signature, guidance_scale, inputs.call, negative=negative)
    return PictureMaker(pipe, height, width, scale, batch_size, prefixes, call, negative)


def _signature(pipe: Any) -> CallSignature:
    return family_of(pipe).call_signature(pipe)


def _guidance(
    pipe: Any, signature: CallSignature, given: float | None, call: Mapping[str, Any], *, negative: bool
) -> tuple[float | None, Mapping[str, Any]]:
    """The guidance scale, wherever it is given, and the other arguments of every call."""
    argument, pipeline = scale_argument(pipe, signature), type(pipe).__name__
    if argument is None:
        if given is not None:
            raise InputError(f"{pipeline} has no guidance scale; leave guidance_scale out")
        return None, call
    in_rows = call.get(argument)
    if None not in (given, in_rows) and given != in_rows:
        raise InputError(f"guidance_scale is {given:g} and {argument} is {in_rows:g} in the inputs; give one of them")
    scale = in_rows if given is None else given
    if scale is None:
        branches = argument == signature.guidance_argument
        default = signature.default_guidance if branches else signature.default_embedded
        own = recommended(pipe).guidance_scale
        scale = default if own is None else own
    elif argument == signature.guidance_argument and signature.needs_negative_prompt and not negative:
        if scale > signature.guided_above:
            raise InputError(
                f"{pipeline} has no guidance without negative prompts; give every input a negative_prompt, or leave"
                " guidance_scale out"
            )
    rest = {name: value for name, value in call.items() if name != argument}
    return None if scale is None else float(scale), rest


def _size(pipe: Any, signature: CallSignature, height: int | None, width: int | None) -> tuple[int, int]:
    native = native_size(pipe)
    sizes = (native[0] if height is None else height, native[1] if width is None else width)
    if not signature.takes_size and not signature.pictures and sizes != native:
        raise InputError(
            f"{type(pipe).__name__} makes pictures of {native[0]} x {native[1]} pixels only; leave height and width out"
        )
    for name, pixels in zip(("height", "width"), sizes, strict=True):
        if pixels <= 0 or pixels % signature.size_multiple:
            raise InputError(f"{name} is {pixels}; give a multiple of {signature.size_multiple} pixels")
    return sizes
