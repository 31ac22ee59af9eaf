"""A call that stands for those to come: what a pipeline of any class must be given to make so many pictures."""

from __future__ import annotations

from typing import Any

from autotune.pipelines.families import CallSignature, family_of
from autotune.runtime.models import native_size, recommended, scale_argument

# Short enough for the text encoder of any model.
_PROMPT = "a red apple"
# Above the value at which guidance begins in any pipeline.
_ABOVE = 3.0


def example_call(
    pipe: Any, batch: int, *, height: int | None = None, width: int | None = None, guided: bool | None = None
) -> dict[str, Any]:
    """Arguments of a call for ``batch`` pictures.

    Pictures to begin with are white, and all of a call's steps are executed.

    Args:
        pipe: A diffusers pipeline.
        batch: Pictures in the call.
        height: Of the pictures, in pixels; the model's native size by default.
        width: Likewise.
        guided: Whether the call computes both branches of guidance; None leaves it to the pipeline.
    """
    family = family_of(pipe)
    signature, card = family.call_signature(pipe), recommended(pipe)
    rows = {"prompt": [_PROMPT] * batch, "class": [0] * batch, "none": batch}[signature.conditioning]
    given: dict[str, Any] = {**card.call, signature.rows_argument: rows}
    if signature.takes_size and height is not None and width is not None:
        given |= {"height": height, "width": width}
    if signature.pictures:
        native = native_size(pipe)
        size = (width or native[1], height or native[0])
        given |= {name: [_white(size)] * batch for name in signature.pictures}
    if "strength" in signature.takes:
        given["strength"] = 1.0
    argument = scale_argument(pipe, signature)
    if argument is not None and card.guidance_scale is not None:
        given[argument] = card.guidance_scale
    return given if guided is None else given | _guidance(signature, given, batch, guided=guided)


def _guidance(signature: CallSignature, given: dict[str, Any], batch: int, *, guided: bool) -> dict[str, Any]:
    """What turns guidance on, or off, in a call that is given the rest."""
    argument = signature.guidance_argument
    if argument is None:
        return {}
    if not guided:
        return {argument: signature.guided_above}
    negative = {"negative_prompt": [""] * batch} if signature.needs_negative_prompt else {}
    return negative if signature.guided(given | negative) else {argument: signature.guided_above + _ABOVE, **negative}


def _white(size: tuple[int, int]) -> Any:
    from PIL import Image

    return Image.new("RGB", size, "white")
