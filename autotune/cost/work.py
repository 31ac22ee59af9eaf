"""What arithmetic is counted in. Pure data, so that prices can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass


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
    (embeddings, the last projection and the like) is computed in every call.
    """

    units: tuple[Work, ...]
    elements: tuple[int, ...]
    always: Work

    @property
    def total(self) -> Work:
        return sum(self.units, self.always)
