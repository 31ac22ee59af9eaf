"""What vanishes where a picture is seen as a whole is seen at native resolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autotune.quality import Baseline, Evaluation, FeatureNetwork, Objective, Reference, coarse
from autotune.quality.crops import Crops
from autotune.quality.extractor import Preprocessing
from autotune.quality.fidelity import feature_distances
from autotune.quality.native import FeatureErrors, crop_features, has_crops
from autotune.quality.panel import Panel
from autotune.quality.terms import flat

SIDE, LARGE, COUNT = 32, 1024, 12


def network() -> FeatureNetwork:
    """Means of what random filters find."""
    torch.manual_seed(0)
    filters = nn.Conv2d(3, 24, 3)

    def features(pictures: Tensor) -> Tensor:
        return filters(pictures).abs().mean((2, 3))

    return FeatureNetwork("filters", features, Preprocessing((SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3))


def scenes(seed: int, count: int = COUNT) -> Tensor:
    """Smooth pictures (count, 3, 1024, 1024) with some texture."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 3, 16, 16, generator=generator)
    texture = torch.randn(count, 3, LARGE, LARGE, generator=generator)
    smooth = F.interpolate(rough, (LARGE, LARGE), mode="bilinear") * 200 + 27
    return (smooth + 12 * texture).clamp(0, 255).round().to(torch.uint8)


def grainy(pictures: Tensor) -> Tensor:
    """A chequered grain of 10 grey levels, which any smaller copy averages away."""
    signs = torch.ones(LARGE, LARGE)
    signs[::2, ::2] = signs[1::2, 1::2] = -1
    return (pictures.float() + 10 * signs).clamp(0, 255).to(torch.uint8)


def blurred(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures.float(), 3, stride=1, padding=1, count_include_pad=False).round().to(torch.uint8)


SPOILED = pytest.mark.parametrize("spoiled", [grainy, blurred])


@SPOILED
def test_it_moves_the_paired_error(spoiled: object) -> None:
    judge, pictures = network(), scenes(0, 4)
    bad = spoiled(pictures)  # type: ignore[operator]
    whole = feature_distances(judge.image_features(bad), judge.image_features(pictures)).mean()
    unit = FeatureErrors(judge)(coarse(pictures), pictures).mean()
    found = FeatureErrors(judge)(bad, pictures).mean()
    assert whole < 0.001 * unit and found > 0.03 * unit
    assert FeatureErrors(judge)(pictures, pictures).tolist() == [0.0] * 4


@SPOILED
def test_it_moves_the_distance_of_crops(spoiled: object) -> None:
    judge, pictures = network(), scenes(1)
    look = crop_features(judge)

    def seen(pictures: Tensor) -> Evaluation:
        return Evaluation(judge.image_features(pictures), further={"distance-crops": look(pictures, 0)})

    spoilt = coarse(pictures)
    baseline = Baseline(
        seen(pictures), judge.image_features(spoilt), None, tuple(map(str, range(COUNT))),
        coarse_further={"distance-crops": look(spoilt, 0)},
    )  # fmt: skip
    good = scenes(2)
    references = {"distance-crops": Reference.of(flat(look(good, 0)), shrink=True)}

    def loss(panel: Panel, pictures: Tensor) -> float:
        reference = Reference.of(judge.image_features(good), shrink=True)
        objective = Objective(reference, baseline, distance="frechet", weights=panel, references=references)
        return objective.score(seen(pictures)).loss

    bad = spoiled(pictures)  # type: ignore[operator]
    assert abs(loss(Panel({"distance": 1}), bad)) < 0.01
    assert loss(Panel({"distance": 1, "distance-crops": 1}), bad) > 0.03


def test_a_picture_is_seen_at_its_rows_places_in_whatever_batch() -> None:
    judge, pictures = network(), scenes(3, 3)
    look, errors = crop_features(judge), FeatureErrors(judge)
    whole = look(pictures, 0)
    torch.testing.assert_close(look(pictures[1:], 1), whole[1:])
    wanted = torch.stack([judge.image_features(Crops(SIDE).of(pictures[row : row + 1], row)) for row in range(3)])
    torch.testing.assert_close(whole, wanted)
    assert not torch.allclose(look(pictures[1:], 0), whole[1:])
    bad = grainy(pictures)
    torch.testing.assert_close(errors(bad[1:], pictures[1:], 1), errors(bad, pictures)[1:])


def test_a_network_says_what_it_sees() -> None:
    judge = network()
    assert judge.side == SIDE
    assert has_crops(judge, SIDE + 1, SIDE + 1)
    assert not has_crops(judge, SIDE, SIDE) and not has_crops(object(), LARGE, LARGE)
