"""A call of a pipeline that does nothing but denoise, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Workload:
    """A pipeline and the arguments of a call that does nothing but denoise."""

    name: str
    pipe: Any
    arguments: dict[str, Any]
    steps: int
    batch: int
    text_tokens: int | None = None

    def run(self) -> float:
        """Seconds of one call."""
        generator = torch.Generator("cpu").manual_seed(0)
        _synchronize()
        begin = time.perf_counter()
        with torch.inference_mode():
            self.pipe(**self.arguments, generator=generator, output_type="latent")
        _synchronize()
        return time.perf_counter() - begin


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
