"""The latents while they are smaller than the pipeline believes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from autotune.pipelines.families import Family, LatentSize
from autotune.runtime import resolution
from autotune.runtime.branches import row_count
from autotune.runtime.schedulers import restart_history
from autotune.runtime.snapshot import digest

# So many values of the noise tell one call from another.
_SEEDING = 64


@dataclass
class Noised:
    """What a pipeline gave the scheduler to add noise to: image-to-image's start, what inpainting keeps."""

    original: Tensor
    noise: Tensor
    timesteps: Any

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Noised:
        """From the arguments of ``add_noise`` or of ``scale_noise``, which name and order them differently."""
        original, timesteps = (
            next(value for name, value in arguments.items() if name in names)
            for names in (("original_samples", "sample"), ("timesteps", "timestep"))
        )
        return cls(original, arguments["noise"], timesteps)


class LowResolution:
    """Holds the real latents below full size and moves them up from stage to stage.

    The pipeline keeps latents of full size that mean nothing before the last hand-off; the
    denoiser and the scheduler get the real ones. The first ones are the low-frequency part of the
    pipeline's own noise, which is white noise again: no other draws from the generator.

    Args:
        family: what is known of the pipeline's class.
        scheduler: the scheduler in use; ``unhooked`` are its own methods by name.
        full: the size the pipeline works at.
        size: the first stage's size.
        latents: the pipeline's first latents, in its own form, one row a picture.
        noised: how they were made from pictures, or None where they are noise alone.
    """

    def __init__(
        self,
        family: Family,
        scheduler: Any,
        unhooked: dict[str, Any],
        full: LatentSize,
        size: LatentSize,
        latents: Tensor,
        noised: Noised | None,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._unhooked = unhooked
        self._full = full
        self.size = size
        self.generator: Any = None
        self._pictures = latents.shape[0]
        self._drawn = (latents if noised is None else noised.noise).flatten()[:_SEEDING].clone()
        if noised is None:
            spatial = family.spatial(latents, full)
            scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
            self._initial = spatial / scale
            low = resolution.shrink_noise(spatial, (size.height, size.width))
        else:
            self._initial = family.spatial(noised.noise, full)
            low = self.add_noise(noised)
        self.latents = family.packed(low, size)

    def sample_for(self, sample: Any, timestep: Any, *, scaled: bool) -> Any:
        """The denoiser's sample in place of the pipeline's, with as many rows and as the scheduler scales it."""
        rows = row_count(sample)
        latents = self._stacked(rows)
        if scaled:
            latents = self._unhooked["scale_model_input"](latents, timestep)
        if isinstance(sample, list):
            return [
                row.reshape(*like.shape[:-2], *row.shape[-2:]).to(like)
                for row, like in zip(latents, sample, strict=True)
            ]
        latents = latents.to(sample.dtype)
        channels = 1 if sample.ndim == 4 else -1
        extra = sample.shape[channels] - latents.shape[channels] if sample.ndim in (3, 4) else 0
        if extra:
            # Inpainting stacks the mask and the masked picture behind the latents.
            condition = sample.narrow(channels, sample.shape[channels] - extra, extra)
            condition = self._family.spatial(condition, self._full)
            condition = resolution.resize(condition, (self.size.height, self.size.width))
            latents = torch.cat([latents, self._family.packed(condition, self.size)], dim=channels)
        return latents.reshape(*sample.shape[:-2], *latents.shape[-2:]) if sample.ndim > latents.ndim else latents

    def sample_in_step(self, sample: Tensor) -> Tensor:
        """The scheduler's sample in place of the pipeline's."""
        self.latents = self._stacked(sample.shape[0])
        return self.latents.to(sample.dtype)

    def placeholder(self, like: Tensor) -> Tensor:
        """Full-size latents that look like the real ones, for callbacks that preview them."""
        spatial = self._family.spatial(self.latents, self.size)
        large = resolution.resize(spatial, (self._full.height, self._full.width))
        return self._family.packed(large, self._full).to(like)

    def hand_over(
        self, kind: str, call: int, output: Tensor, sample: Tensor, following: Tensor, size: LatentSize
    ) -> Tensor:
        """Take the latents after call ``call`` to ``size`` and bring the scheduler's history along.

        Returns:
            The latents in the pipeline's form.
        """
        target = (size.height, size.width)
        family = self._family
        low = family.spatial(following, self.size)
        initial = self._initial.repeat(low.shape[0] // self._initial.shape[0], *[1] * (low.ndim - 1))

        def fresh() -> Tensor:
            generator = self._generator_now()
            # One generator a picture, and rows for both branches: the branches share their noise.
            rows = len(generator) if isinstance(generator, list) else low.shape[0]
            shape = (rows, *low.shape[1:-2], *target)
            noise: Tensor = randn_tensor(shape, generator=generator, device=low.device, dtype=low.dtype)
            return noise.repeat(low.shape[0] // rows, *[1] * (noise.ndim - 1))

        latents, x0, noise = resolution.hand_over(
            kind,
            self._scheduler,
            call,
            family.spatial(output, self.size),
            family.spatial(sample, self.size),
            low,
            target,
            fresh,
            initial,
        )

        def upsample(entry: Tensor) -> Tensor:
            return family.packed(resolution.resize(family.spatial(entry, self.size), target), size)

        restart_history(self._scheduler, call, upsample, family.packed(x0, size), family.packed(noise, size))
        self.size = size
        self.latents = family.packed(latents, size).to(following.dtype)
        return self.latents

    def add_noise(self, noised: Noised) -> Tensor:
        """What the pipeline asked the scheduler for, at this size: spatial."""
        size = (self.size.height, self.size.width)
        noise = resolution.shrink_noise(self._family.spatial(noised.noise, self._full), size)
        original = resolution.resize(self._family.spatial(noised.original, self._full), size)
        name = "add_noise" if "add_noise" in self._unhooked else "scale_noise"
        ordered = (noise, noised.timesteps) if name == "add_noise" else (noised.timesteps, noise)
        latents: Tensor = self._unhooked[name](original, *ordered)
        return latents

    def inpaint(self, noised: Noised, mask: Tensor) -> None:
        """Outside of ``mask`` take the given picture at the present noise level, as the pipeline does at full size."""
        unmasked = self.add_noise(noised)
        mask = self._family.spatial(mask, self._full).to(unmasked)
        mask = resolution.resize(mask, (self.size.height, self.size.width))
        rows = self.latents.shape[0]
        mask = mask[:rows] if mask.shape[0] >= rows else mask
        painted = self._family.spatial(self.latents, self.size)
        self.latents = self._family.packed((1 - mask) * unmasked + mask * painted, self.size)

    def _stacked(self, rows: int) -> Tensor:
        """One row a picture, repeated as pipelines do for guidance; of latents that hold both branches the first."""
        return torch.cat([self.latents[: self._pictures]] * (rows // self._pictures))

    def _generator_now(self) -> Any:
        if self.generator is not None:
            return self.generator
        # Pipelines that pass theirs nowhere on (DiT): fresh noise must still follow from it, and be the same on every
        # device. So it hangs on the noise as it was drawn: what is computed of it differs in its last bits.
        return torch.Generator().manual_seed(int(digest(self._drawn.float().cpu().numpy().tobytes())[:8], 16))
