"""Making pictures reproducibly: one generator per picture, fixed batches, uint8 out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.evaluation.input_pictures import MASK
from autotune.evaluation.inputs import CLASS, PROMPT, Row, with_pictures
from autotune.pipelines.families import CallSignature, family_of
from autotune.runtime.models import recommended, scale_argument

# What a call may return pictures as, best first.
_FORMS = ("pt", "np", "pil")


def generate(pipe: Any, prompts: Sequence[str | Row], seeds: Sequence[int], **options: Any) -> Tensor:
    """All pictures (N, 3, H, W) of :func:`picture_batches`, which see for the arguments, at once."""
    rows = [Row({PROMPT: each}) if isinstance(each, str) else each for each in prompts]
    return torch.cat(list(picture_batches(pipe, rows, seeds, **options)))


def picture_batches(
    pipe: Any,
    rows: Sequence[Row],
    seeds: Sequence[int],
    *,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    steps: int | None = None,
    batch_size: int = 16,
    shared: Mapping[str, Any] = {},
    on_batch: Callable[[int], None] | None = None,
    call: Callable[..., Any] | None = None,
) -> Generator[Tensor, None, None]:
    """Run the pipeline, under whatever policy is applied, on ``rows`` with one seed each.

    A picture depends on its row, its seed and, in the last bits, on the batch it is computed
    in; the same call therefore gives the same pictures.

    Args:
        height, width: of the pictures, and of those that rows hold, which are resized as a whole. Without them the
            pipeline decides, and pictures are given to it as they are.
        guidance_scale: the pipeline's default when None.
        steps: for a pipeline without a policy; None leaves the number to policy or pipeline.
        shared: further arguments of every call.
        on_batch: called with the number of pictures made so far.
        call: what is called in the pipeline's place, see :func:`autotune.runtime.apply.applied_sharing`.

    Yields:
        Pictures (n, 3, H, W) uint8 on the CPU, n at most ``batch_size``.

    Raises:
        InputError: the pipeline returns no pictures.
        FloatingPointError: a picture holds NaN or infinity.
    """
    signature = family_of(pipe).call_signature(pipe)
    size = None if height is None or width is None else (width, height)
    # Not None, for pipelines whose own size is a number would compute with it.
    sides = {"height": height, "width": width} if signature.takes_size else {}
    options: dict[str, Any] = {name: side for name, side in sides.items() if side is not None}
    options |= {"output_type": next(form for form in _FORMS if form in signature.output_types)}
    options |= recommended(pipe).call | {name: _given(name, value, None) for name, value in shared.items()}
    scale = scale_argument(pipe, signature)
    if guidance_scale is not None and scale is not None:
        options[scale] = guidance_scale
    if steps is not None:
        options["num_inference_steps"] = steps
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[batch]]
        arguments = _of_rows(rows[batch], signature, size)
        images = as_tensor(pipe, (call or pipe)(**arguments, generator=generators, **options))
        if not torch.isfinite(images).all():
            raise FloatingPointError("the pipeline made pictures with NaN or infinite values")
        if on_batch is not None:
            on_batch(min(start + batch_size, len(rows)))
        yield (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def as_tensor(pipe: Any, output: Any) -> Tensor:
    """What a pipeline returned as (n, 3, H, W) in [0, 1]: of a tensor, an array (n, H, W, C) or Pillow's images.

    Raises:
        InputError: it returned something else.
    """
    # Kandinsky 5's has them as ``image``.
    images = getattr(output, "images", getattr(output, "image", None))
    if isinstance(images, list):
        images = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images])
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
    # Models of gray pictures have one channel.
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        found = "no images" if images is None else f"{type(images).__name__} {list(getattr(images, 'shape', []))}"
        raise InputError(
            f"{type(pipe).__name__} returns {found} where pictures of one or three channels are asked for: it must heed"
            " output_type 'pt', 'np' or 'pil'"
        )
    return images.expand(-1, 3, -1, -1)


def _of_rows(rows: Sequence[Row], signature: CallSignature, size: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of a call that makes a picture of each row."""
    if signature.conditioning == "none":
        return {signature.rows_argument: len(rows)}
    return {
        signature.rows_argument if name == CLASS else name: [_given(name, row.arguments[name], size) for row in rows]
        for name in rows[0].arguments
    }


def _given(name: str, value: Any, size: tuple[int, int] | None) -> Any:
    """A value as pipelines take it."""
    return with_pictures(value, lambda picture: picture.opened(size, gray=name == MASK))
