"""DISTS against torchmetrics' with random features of VGG-16, and LPIPS as a judge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from autotune.core.errors import InputError
from autotune.quality.judges import load_judge
from autotune.quality.judges.perceptual import VGG16_URL, Dists, as_seen
from autotune.quality.lpips import Lpips
from tests.quality.test_lpips import pictures

TINY: list[str | int] = [4, 4, "M", 6, 6, "M", 5, 5, 5, "M", 7, 7, 7, "M", 3, 3, 3, "M"]


def features_of_vgg(widths: list[str | int]) -> Any:
    torch.manual_seed(0)
    return make_layers(widths)  # type: ignore[arg-type]


def tiny_weights() -> dict[str, Tensor]:
    return {f"features.{name}": value.clone() for name, value in features_of_vgg(TINY).state_dict().items()}


@pytest.fixture(scope="module")
def vgg() -> Any:
    """The convolutions of VGG-16 alone: the classifier's 120 million weights play no part."""
    return features_of_vgg(cfgs["D"])


@pytest.fixture
def torchmetrics_dists(vgg: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchmetrics' network, and ours finding the same weights."""
    from torchmetrics.functional.image import dists

    monkeypatch.setattr(dists, "vgg16", lambda **kwargs: SimpleNamespace(features=vgg))

    def load(url: str, **kwargs: object) -> dict[str, Tensor]:
        assert url == VGG16_URL and kwargs["weights_only"] is True
        return {f"features.{name}": value for name, value in vgg.state_dict().items()}

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", load)
    return dists.DISTSNetwork().eval()


def smooth(seed: int, n: int, height: int, width: int) -> Tensor:
    rough = torch.rand((n, 3, 6, 6), generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1) * 255).byte()


def test_dists_is_torchmetrics_with_the_authors_weights(torchmetrics_dists: Any) -> None:
    one, other = smooth(1, 3, 64, 50), smooth(2, 3, 64, 50)
    values = load_judge("dists", batch_size=2)(one, other)
    expected = torchmetrics_dists(one.float() / 255, other.float() / 255)
    torch.testing.assert_close(values, expected.double(), rtol=1e-3, atol=1e-6)
    assert values.dtype == torch.float64
    assert float(values.min()) > 0.01


@pytest.mark.parametrize(("size", "seen"), [((320, 400), (256, 320)), ((300, 256), (300, 256)), ((48, 40), (48, 40))])
def test_the_shorter_side_is_seen_at_256_pixels_at_most(size: tuple[int, int], seen: tuple[int, int]) -> None:
    picture = smooth(1, 1, *size)
    image = Image.fromarray(picture[0].permute(1, 2, 0).numpy())
    expected = numpy.asarray(image.resize(seen[::-1], Image.Resampling.BILINEAR))
    ours = as_seen(picture)
    assert ours.shape == (1, 3, *seen)
    # As the authors see it, up to Pillow's rounding to bytes.
    assert float((ours[0].permute(1, 2, 0) * 255 - torch.tensor(expected)).abs().max()) < 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_dists_is_zero_for_identical_pictures_symmetric_and_positive(seed: int) -> None:
    state = tiny_weights()
    channels = 3 + 4 + 6 + 5 + 7 + 3
    alpha, beta = torch.rand(2, 1, channels, 1, 1, generator=torch.Generator().manual_seed(seed))
    network = Dists(state, alpha, beta)
    one, other = torch.rand(2, 2, 3, 32, 40, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        assert network(one, one).tolist() == [0.0, 0.0]
        there, back = network(one, other), network(other, one)
    torch.testing.assert_close(there, back)
    assert float(there.min()) > 0


def test_weights_of_other_widths_are_refused() -> None:
    state = tiny_weights()
    with pytest.raises(ValueError, match="of 4 and 28 channels, not 28"):
        Dists(state, torch.ones(1, 4, 1, 1), torch.ones(1, 28, 1, 1))
    del state["features.12.weight"]
    with pytest.raises(KeyError, match="features.12.weight"):
        Dists(state, torch.ones(1, 28, 1, 1), torch.ones(1, 28, 1, 1))


def test_lpips_is_measured_in_alexnet(lpips_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(backbone: str, **settings: Any) -> Lpips:
        assert backbone == "alex"
        return Lpips("squeeze", **settings)

    monkeypatch.setattr("autotune.quality.judges.perceptual.Lpips", small)
    one, other = pictures(1), pictures(2)
    values = load_judge("lpips", batch_size=2)(one, other)
    torch.testing.assert_close(values, Lpips("squeeze")(one, other), rtol=1e-4, atol=1e-6)


def test_pictures_that_are_too_small_are_said_to_be(torchmetrics_dists: Any) -> None:
    judge = load_judge("dists")
    with pytest.raises(InputError, match="judge dists needs pictures of 32 pixels a side or more, not 16x48"):
        judge(*torch.zeros(2, 1, 3, 16, 48, dtype=torch.uint8))
    with pytest.raises(ValueError, match="pairs of pictures"):
        judge(pictures(1), pictures(2, n=4))
