"""How the pictures of a search are made: by one pipeline, at one size and guidance scale, in batches of one size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from autotune.core.errors import InputError
from autotune.evaluation.evaluator import Pictures
from autotune.evaluation.pictures import picture_batches
from autotune.pipelines.families import family_of
from autotune.policy import MAX_STEPS, Policy
from autotune.runtime import applied
from autotune.runtime.apply import applied_sharing, session_of
from autotune.runtime.models import native_size, recommended
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.rehearsal import check_runs


@dataclass(frozen=True)
class PictureMaker:
    """Makes pictures under policies.

    Attributes:
        pipe: The diffusers pipeline.
        height: Pixels.
        width: Pixels.
        guidance_scale: Of classifier-free guidance.
        batch_size: Pictures per pipeline call.
        prefixes: What calls under other policies began with, to go on from; None makes every call from its start.
    """

    pipe: Any
    height: int
    width: int
    guidance_scale: float
    batch_size: int
    prefixes: PrefixCache | None = None

    @property
    def guided(self) -> bool:
        """Whether calls use classifier-free guidance; some models take the scale as a mere input."""
        return self.guidance_scale > 1 and family_of(self.pipe).guided

    def check(self, policy: Policy) -> None:
        """Find out now whether the pipeline runs under the policy, not after files were written.

        Raises:
            InputError: it does not.
        """
        check_runs(self.pipe, policy, self.height, self.width)

    def pictures(
        self,
        policy: Policy,
        prompts: Sequence[str],
        seeds: Sequence[int],
        on_batch: Callable[[int], None] | None = None,
    ) -> Pictures:
        """Pictures (n, 3, H, W) uint8 of prompts with one seed each, in batches.

        Args:
            policy: What they are made under.
            prompts: What they show.
            seeds: As many.
            on_batch: Called with the number of pictures made so far.
        """
        with self._callable(policy) as call:
            yield from picture_batches(
                self.pipe,
                prompts,
                seeds,
                height=self.height,
                width=self.width,
                guidance_scale=self.guidance_scale,
                batch_size=self.batch_size,
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
) -> PictureMaker:
    """A maker of pictures; what is None is the model's own: native size and recommended, else default, guidance.

    With ``prefixes`` pictures under policies that begin alike share that; they are the same to the bit.

    Raises:
        InputError: the pipeline makes no pictures of that size or none at all, runs under a policy already, or is not
            supported.
    """
    if not 1 <= batch_size <= MAX_STEPS:
        raise InputError(f"batch_size is {batch_size}; give a number from 1 to {MAX_STEPS}")
    if session_of(pipe) is not None:
        raise InputError("the pipeline already runs under a policy; call autotune.remove_policy(pipe) first")
    if family_of(pipe).default_frames(pipe) is not None:
        raise InputError(
            f"{type(pipe).__name__} makes videos, which nothing here judges yet: policies for it are priced and run,"
            " but made by hand"
        )
    height, width = _size(pipe, height, width)
    if guidance_scale is None:
        default = inspect.signature(pipe.__call__).parameters["guidance_scale"].default
        guidance_scale = float(recommended(pipe).get("guidance_scale", default))
    return PictureMaker(pipe, height, width, guidance_scale, batch_size, prefixes)


@contextmanager
def without_bars(pipe: Any) -> Iterator[None]:
    """Pipelines draw a bar for every call, across the search's own progress."""
    before = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)


def _size(pipe: Any, height: int | None, width: int | None) -> tuple[int, int]:
    native = native_size(pipe)
    sizes = (native[0] if height is None else height, native[1] if width is None else width)
    for name, pixels in zip(("height", "width"), sizes, strict=True):
        if pixels <= 0 or pixels % pipe.vae_scale_factor:
            raise InputError(f"{name} is {pixels}; give a multiple of {pipe.vae_scale_factor} pixels")
    return sizes
