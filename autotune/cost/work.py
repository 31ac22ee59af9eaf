"""What arithmetic is counted in, and what it comes to. Pure data, so that prices can be read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pydantic import ConfigDict

from autotune.core.records import Record


@dataclass(frozen=True)
class Work:
    """Arithmetic of one forward pass for one sample.

    ``flops``: two per multiply-add, attention products included. ``macs_conv_linear``:
    multiply-adds of convolutions and linear layers only, as T-GATE and PostDiff print them.
    """

    flops: int
    macs_conv_linear: int

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.macs_conv_linear - other.macs_conv_linear)

    def __mul__(self, times: int) -> Work:
        return Work(self.flops * times, self.macs_conv_linear * times)

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.macs_conv_linear + other.macs_conv_linear)


@dataclass(frozen=True)
class WorkTable:
    """Work and output size of every unit at one latent size, and the work no unit contains.

    ``units`` and ``elements`` follow the structure's units; a unit's work is its own, without that
    of units inside it; ``elements`` is the number of values in its output for one sample. ``always``
    (embeddings, the last projection and the like) is computed in every call. ``output`` is the number
    of values in the denoiser's output for one sample; 0 in tables of runs from before differences of branches were
    kept, which have no such policies.
    """

    units: tuple[Work, ...]
    elements: tuple[int, ...]
    always: Work
    output: int = 0

    @cached_property
    def total(self) -> Work:
        """Of a call in which every unit computes."""
        return self.of(range(len(self.units)))

    def of(self, computed: Iterable[int]) -> Work:
        """Of a call in which these units compute, once each."""
        # Of hundreds of units, sums of plain numbers take a fraction of the time that sums of objects do.
        found = [self.units[unit] for unit in computed]
        return Work(
            sum([work.flops for work in found], self.always.flops),
            sum([work.macs_conv_linear for work in found], self.always.macs_conv_linear),
        )


@dataclass(frozen=True)
class Cost:
    """What a policy costs.

    Attributes:
        flops: of the denoising loop, two per multiply-add, for the whole batch.
        macs_conv_linear: multiply-adds of convolutions and linear layers only, the papers' convention.
        relative: ``flops`` as a fraction of the full run's.
        latency_ms: of a pipeline call with the whole batch on the target, text encoder and decoder included;
            None without a hardware profile.
        cache_bytes: most memory that kept features and the difference of guidance's branches take at any step, for
            the whole batch.
        latent_bytes: memory of the latents that the runtime holds beside the pipeline's own while these are
            smaller than the pipeline believes, for the whole batch.
    """

    flops: int
    macs_conv_linear: int
    relative: float
    latency_ms: float | None
    cache_bytes: int
    latent_bytes: int = 0

    # In documents a cost is as strict as the record that holds it.
    __pydantic_config__: ClassVar[ConfigDict] = Record.model_config

    @property
    def memory_bytes(self) -> int:
        """Most memory that running under the policy takes besides the plain pipeline's."""
        return self.cache_bytes + self.latent_bytes
