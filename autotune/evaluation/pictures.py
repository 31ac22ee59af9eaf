"""Making pictures reproducibly: one generator per picture, fixed batches, uint8 out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from autotune.runtime.models import recommended


def generate(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], **options: Any) -> Tensor:
    """All pictures (N, 3, H, W) of :func:`picture_batches`, which see for the arguments, at once."""
    return torch.cat(list(picture_batches(pipe, prompts, seeds, **options)))


def picture_batches(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    steps: int | None = None,
    batch_size: int = 16,
    on_batch: Callable[[int], None] | None = None,
    call: Callable[..., Any] | None = None,
) -> Generator[Tensor, None, None]:
    """Run the pipeline, under whatever policy is applied, on ``prompts`` with one seed each.

    A picture depends on its prompt, its seed and, in the last bits, on the batch it is computed
    in; the same call therefore gives the same pictures.

    Args:
        guidance_scale: the pipeline's default when None.
        steps: for a pipeline without a policy; None leaves the number to policy or pipeline.
        on_batch: called with the number of pictures made so far.
        call: what is called in the pipeline's place, see :func:`autotune.runtime.apply.applied_sharing`.

    Yields:
        Pictures (n, 3, H, W) uint8 on the CPU, n at most ``batch_size``.

    Raises:
        FloatingPointError: a picture holds NaN or infinity.
    """
    options: dict[str, Any] = {"height": height, "width": width, "output_type": "pt"} | recommended(pipe).get(
        "call", {}
    )
    if guidance_scale is not None:
        options["guidance_scale"] = guidance_scale
    if steps is not None:
        options["num_inference_steps"] = steps
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[batch]]
        images = (call or pipe)(list(prompts[batch]), generator=generators, **options).images
        if not torch.isfinite(images).all():
            raise FloatingPointError("the pipeline made pictures with NaN or infinite values")
        if on_batch is not None:
            on_batch(min(start + batch_size, len(prompts)))
        yield (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
