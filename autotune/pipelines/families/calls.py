"""What a pipeline's call takes: what it depicts by, how guidance is turned on, sizes and forms of its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Conditioning = Literal["prompt", "class", "none"]

_ROWS: Mapping[Conditioning, str] = {"prompt": "prompt", "class": "class_labels", "none": "batch_size"}


@dataclass(frozen=True)
class CallSignature:
    """The arguments of a pipeline's ``__call__`` by their meaning, with the defaults that its signature gives them.

    Attributes:
        takes: Names of all arguments.
        conditioning: What a row of a batch depicts by.
        classes: How many classes a class-conditional model knows, labelled from 0; None for all others.
        guidance_argument: The argument that turns on classifier-free guidance; None where a call has none.
        default_guidance: Its value where a call does not name it.
        guided_above: Guidance computes two branches above this value.
        guided_by_itself: Whether guidance is on without an argument that says so: by a guider.
        needs_negative_prompt: Without a negative prompt there is no guidance, whatever its scale.
        embedded_guidance: The argument of a guidance scale that the denoiser gets as a mere input, at no cost (LCM,
            FLUX.1-dev); None where there is none.
        default_embedded: Its value where a call does not name it; None is a value to some.
        takes_size: Whether a call takes ``height`` and ``width``; else the given picture or the model sets the size.
        size_multiple: Sides must be multiples of so many pixels, as far as the configs say.
        pictures: The arguments that take pictures, which a call must be given.
        output_types: Values of ``output_type`` that return what they say: ``pil``, ``np`` (B, H, W, 3), ``pt``
            (B, 3, H, W), both in [0, 1], or ``latent``.
    """

    takes: frozenset[str]
    conditioning: Conditioning
    classes: int | None
    guidance_argument: str | None
    default_guidance: float | None
    guided_above: float
    guided_by_itself: bool
    needs_negative_prompt: bool
    embedded_guidance: str | None
    default_embedded: float | None
    takes_size: bool
    size_multiple: int
    pictures: tuple[str, ...]
    output_types: frozenset[str]

    @property
    def rows_argument(self) -> str:
        """The argument with one entry a picture: ``prompt`` or ``class_labels``; or ``batch_size``, their number.

        A negative prompt is given in the form of the prompt, as a list where that is one.
        """
        return _ROWS[self.conditioning]

    @property
    def bins_sizes(self) -> bool:
        """Whether a call moves sizes to the nearest of a list, unless told ``use_resolution_binning=False``."""
        return "use_resolution_binning" in self.takes

    def guided(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments computes both branches of classifier-free guidance.

        Example:
            >>> from autotune.pipelines.families import family_of
            >>> signature = family_of(pipe).call_signature(pipe)
            >>> signature.guided({"guidance_scale": 1.0})
            False
        """
        if self.guidance_argument is None:
            return self.guided_by_itself
        scale = arguments.get(self.guidance_argument, self.default_guidance)
        negative = any(arguments.get(name) is not None for name in ("negative_prompt", "negative_prompt_embeds"))
        return scale is not None and scale > self.guided_above and (negative or not self.needs_negative_prompt)
