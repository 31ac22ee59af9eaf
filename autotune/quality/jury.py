"""Judges of a panel that look at pictures themselves, loaded and tried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.evaluations import coarse
from autotune.quality.native import has_crops
from autotune.quality.panel import JUDGES, Panel, Sources

__all__ = ["LoadedJudge", "load_judges", "probe_pictures", "suited"]


@dataclass(frozen=True, eq=False)
class LoadedJudge:
    """A judge as it is asked. What it gives is checked, for it may be anybody's.

    Attributes:
        name: What the registry knows it by.
        call: What its ``load`` made.
    """

    name: str
    call: Callable[..., Tensor]

    @property
    def kind(self) -> str:
        return JUDGES[self.name].kind

    def features(self, pictures: Tensor, first_row: int = 0) -> Tensor:
        """Of a distribution: features (n, D) or (n, C, D) of pictures (n, 3, H, W) uint8, on the CPU.

        Args:
            pictures: Of consecutive rows.
            first_row: Number of the first one.

        Raises:
            ValueError: It gives something else, or a value that is not finite.
        """
        return self._checked(self.call(pictures, *self._row(first_row)), len(pictures), (2, 3))

    def errors(self, pictures: Tensor, exact: Tensor, first_row: int = 0) -> Tensor:
        """Of pairs: (n,) or signed (n, D) float64, 0 for identical ones, of pictures (n, 3, H, W) uint8 and exact ones.

        Raises:
            ValueError: As for :meth:`features`.
        """
        return self._checked(self.call(pictures, exact, *self._row(first_row)), len(pictures), (1, 2)).double()

    def scores(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Of alignment: (n,), higher is better, of pictures (n, 3, H, W) uint8 with n prompts.

        Raises:
            ValueError: As for :meth:`features`.
        """
        return self._checked(self.call(pictures, list(prompts)), len(pictures), (1,))

    def _row(self, first: int) -> tuple[int, ...]:
        return (first,) if JUDGES[self.name].by_row else ()

    def _checked(self, values: Tensor, pictures: int, dimensions: tuple[int, ...]) -> Tensor:
        if values.ndim not in dimensions or len(values) != pictures:
            raise ValueError(f"judge {self.name} gives {tuple(values.shape)} of {pictures} pictures")
        bad = int((~values.isfinite()).sum())
        if bad:
            raise ValueError(f"judge {self.name} gives values that are not finite, {bad} of {values.numel()}")
        return values.detach().cpu()


def suited(panel: Panel, sources: Sources, size: tuple[int, int], *, asked: bool) -> Panel:
    """The panel for pictures of a size: crops say nothing new of those that are no larger than what the network sees.

    Args:
        panel: The judges.
        sources: What they are made of.
        size: Height and width of the pictures.
        asked: Whether a user named the judges, who is then told.

    Raises:
        InputError: A judge that was asked for has nothing to say.
    """
    idle = [name for name in panel.further if JUDGES[name].above_side and not has_crops(sources.network, *size)]
    if idle and asked:
        raise InputError(
            f"judge {idle[0]} looks at crops, and pictures of {size[0]} x {size[1]} pixels are no larger than what the"
            " network sees as a whole; leave it out"
        )
    return panel.without(*idle) if idle else panel


def load_judges(panel: Panel, sources: Sources, size: tuple[int, int]) -> tuple[LoadedJudge, ...]:
    """Load the judges that look at pictures themselves, and try each on two pictures of the size.

    Args:
        panel: The judges.
        sources: What they are made of.
        size: Height and width of the pictures.

    Raises:
        InputError: Weights or packages are missing, or a judge gives no usable numbers; one sentence.
    """
    loaded = []
    for name in panel.further:
        load = JUDGES[name].load
        assert load is not None, "those that look themselves"
        judge = LoadedJudge(name, load(sources))
        _try(judge, size)
        loaded.append(judge)
    return tuple(loaded)


def probe_pictures(size: tuple[int, int]) -> Tensor:
    """Two pictures (2, 3, H, W) uint8 of noise, for trying out what looks at pictures."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, *size), generator=generator, dtype=torch.uint8)


def _try(judge: LoadedJudge, size: tuple[int, int]) -> None:
    pictures = probe_pictures(size)
    try:
        if judge.kind == "paired":
            judge.errors(pictures, coarse(pictures))
        elif judge.kind == "distribution":
            judge.features(pictures)
        else:
            judge.scores(pictures, ["a picture", "noise"])
    except InputError:
        raise
    except ValueError as error:
        sentence = str(error) if str(error).startswith("judge ") else f"judge {judge.name} refuses pictures: {error}"
        raise InputError(f"{sentence} ({size[0]} x {size[1]} pixels were tried); leave it out") from error
