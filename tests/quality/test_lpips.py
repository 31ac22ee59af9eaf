"""LPIPS with random weights of its smallest backbone: the real ones cannot be had without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.lpips import Lpips


def pictures(seed: int, n: int = 5, side: int = 48) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_it_is_torchmetrics_value_pair_by_pair(lpips_weights: Path) -> None:
    from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity

    one, other = pictures(1), pictures(2)
    values = Lpips("squeeze", batch_size=2)(one, other)
    expected = [
        float(
            learned_perceptual_image_patch_similarity(
                a[None].float() / 255, b[None].float() / 255, net_type="squeeze", normalize=True
            )
        )
        for a, b in zip(one, other, strict=True)
    ]
    assert values.tolist() == pytest.approx(expected, rel=1e-4)
    assert values.dtype == torch.float64


def test_identical_pairs_are_at_zero_and_one_pair_is_a_vector(lpips_weights: Path) -> None:
    lpips = Lpips("squeeze")
    assert lpips(pictures(1), pictures(1)).tolist() == [0.0] * 5
    assert lpips(pictures(1, n=1), pictures(2, n=1)).shape == (1,)


def test_what_does_not_fit_is_refused(lpips_weights: Path) -> None:
    lpips = Lpips("squeeze")
    with pytest.raises(ValueError, match="pairs of pictures"):
        lpips(pictures(1), pictures(2, n=4))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        lpips(pictures(1, side=16), pictures(2, side=16))


def test_there_is_no_other_backbone() -> None:
    with pytest.raises(InputError, match="no backbone 'alexnet'; did you mean 'alex'"):
        Lpips("alexnet")  # type: ignore[arg-type]


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(InputError, match="alex weights that LPIPS needs cannot be had .no network.; put") as caught:
        Lpips()
    assert f"alexnet-owt-7be5be79.pth into {tmp_path}" in str(caught.value)
