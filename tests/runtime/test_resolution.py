"""Moving latents between sizes: what each map preserves."""

from __future__ import annotations

import diffusers
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autotune.core.errors import PolicyError
from autotune.runtime.resolution import HANDOVERS, embed_noise, hand_over, resize, shrink_noise
from autotune.runtime.schedulers import level

SIDE = st.integers(1, 10)
Size = tuple[int, int]


@st.composite
def nested(draw: st.DrawFn, count: int = 2) -> list[Size]:
    """Sizes that do not shrink from one to the next."""
    heights, widths = (sorted(draw(st.lists(SIDE, min_size=count, max_size=count))) for _ in range(2))
    return list(zip(heights, widths, strict=True))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@settings(deadline=None, max_examples=60)
@given(sizes=nested())
def test_white_noise_stays_white_when_shrunk(sizes: list[Size]) -> None:
    """The covariance of the result is A A^T for the map A: exactly the identity, at any ratio of sizes."""
    low, full = sizes
    count = full[0] * full[1]
    images = shrink_noise(torch.eye(count).reshape(count, 1, *full), low)
    rows = images.reshape(count, -1).T
    close(rows @ rows.T, torch.eye(low[0] * low[1]))


@settings(deadline=None, max_examples=60)
@given(sizes=nested())
def test_embedding_is_undone_by_shrinking_and_keeps_the_high_frequencies(sizes: list[Size]) -> None:
    low, full = normal(2, 3, *sizes[0], seed=1), normal(2, 3, *sizes[1], seed=2)
    embedded = embed_noise(low, full)
    close(shrink_noise(embedded, sizes[0]), low)
    # Replacing the low frequencies by the old ones gives the old noise: nothing else was touched.
    close(embed_noise(shrink_noise(full, sizes[0]), embedded), full)
    # Orthonormal: energies of the two bands add up.
    high = full.square().sum() - shrink_noise(full, sizes[0]).square().sum()
    close(embedded.square().sum(), low.square().sum() + high, 1e-4)


@settings(deadline=None, max_examples=40)
@given(sizes=nested(3))
def test_shrinking_twice_is_shrinking_once(sizes: list[Size]) -> None:
    low, middle, full = sizes
    noise = normal(2, *full)
    close(shrink_noise(shrink_noise(noise, middle), low), shrink_noise(noise, low))


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(SIDE, SIDE), new=st.tuples(SIDE, SIDE))
def test_resizing_keeps_constants_and_the_range_of_values(old: Size, new: Size) -> None:
    close(resize(torch.full((2, 3, *old), 0.7), new), torch.full((2, 3, *new), 0.7))
    x = normal(2, 3, *old)
    resized = resize(x, new)
    assert x.min() - 1e-5 <= resized.min() <= resized.max() <= x.max() + 1e-5


def test_resizing_is_bilinear_and_antialiased_when_shrinking() -> None:
    x = normal(2, 4, 6, 6)
    close(resize(x, (9, 12)), F.interpolate(x, (9, 12), mode="bilinear", align_corners=False))
    assert torch.equal(resize(x, (6, 6)), x)
    # Plain bilinear sampling of a pattern of period 2 to a third of the size sees one phase of it only.
    stripes = (torch.arange(18) % 2).float().expand(1, 1, 18, 18)
    assert (resize(stripes, (6, 6)) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("leading", [(3,), (2, 4), (2, 4, 5)], ids=["C", "BC", "BCF"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_leading_dimensions_and_dtype(leading: tuple[int, ...], dtype: torch.dtype) -> None:
    x = normal(*leading, 8, 12).to(dtype)
    low = normal(*leading, 4, 6, seed=1).to(dtype)
    for result, size in [
        (resize(x, (4, 6)), (4, 6)),
        (shrink_noise(x, (4, 6)), (4, 6)),
        (embed_noise(low, x), (8, 12)),
    ]:
        assert result.shape == (*leading, *size)
        assert result.dtype == dtype
    # In single precision inside: the same as rounding once at the end.
    assert torch.equal(shrink_noise(x, (4, 6)), shrink_noise(x.float(), (4, 6)).to(dtype))
    first = shrink_noise(x.reshape(-1, 8, 12)[0], (4, 6))
    close(shrink_noise(x, (4, 6)).reshape(-1, 4, 6)[0].float(), first.float(), torch.finfo(dtype).eps + 1e-6)


def never() -> Tensor:
    raise AssertionError("no fresh noise is needed")


@pytest.mark.parametrize("clip", [False, True])
def test_noise_matched_at_the_same_size_changes_nothing(clip: bool) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=clip)
    scheduler.set_timesteps(10)
    sample, output = normal(2, 4, 6, 6), normal(2, 4, 6, 6, seed=1)
    for call in range(9):
        following = scheduler.step(output, scheduler.timesteps[call], sample).prev_sample
        initial = normal(2, 4, 6, 6, seed=2)
        latents, _, _ = hand_over("noise_matched", scheduler, call, output, sample, following, (6, 6), never, initial)
        close(latents, following, 1e-4)
        sample = following


def test_renoise_is_the_resized_prediction_with_fresh_noise_of_the_next_level() -> None:
    """The scheduler's own add_noise at the next timestep, as in the paper."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    sample, output, drawn = normal(2, 4, 4, 4), normal(2, 4, 4, 4, seed=1), normal(2, 4, 8, 8, seed=2)
    result = scheduler.step(output, scheduler.timesteps[3], sample)
    latents, x0, noise = hand_over(
        "renoise", scheduler, 3, output, sample, result.prev_sample, (8, 8), lambda: drawn, normal(2, 4, 8, 8)
    )
    close(x0, resize(result.pred_original_sample, (8, 8)))
    assert torch.equal(noise, drawn)
    close(latents, scheduler.add_noise(x0, drawn, scheduler.timesteps[4:5]))


@pytest.mark.parametrize("kind", HANDOVERS)
def test_the_parts_a_hand_over_returns_make_up_its_latents(kind: str) -> None:
    """Video latents in half precision, with a flow."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    sample, output = normal(1, 4, 3, 6, 6).half(), normal(1, 4, 3, 6, 6, seed=1).half()
    following = scheduler.step(output, scheduler.timesteps[5], sample).prev_sample
    shape = (1, 4, 3, 8, 8)
    latents, x0, noise = hand_over(
        kind, scheduler, 5, output, sample, following, (8, 8), lambda: normal(*shape, seed=2), normal(*shape, seed=3)
    )
    signal, noise_level = level(scheduler, 6)
    for tensor in (latents, x0, noise):
        assert tensor.shape == shape
        assert tensor.dtype == torch.float16
    close(latents.float(), signal * x0.float() + noise_level * noise.float(), 5e-3)


def test_noise_matched_keeps_the_low_resolution_noise_and_the_first_noises_high_frequencies() -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    sample, output, initial = normal(2, 4, 6, 6), normal(2, 4, 6, 6, seed=1), normal(2, 4, 8, 8, seed=2)
    following = scheduler.step(output, scheduler.timesteps[3], sample).prev_sample
    _, _, noise = hand_over("noise_matched", scheduler, 3, output, sample, following, (8, 8), never, initial)
    # DDIM keeps the predicted noise as the noise of the next level.
    close(shrink_noise(noise, (6, 6)), output, 1e-4)
    close(embed_noise(shrink_noise(initial, (6, 6)), noise), initial, 1e-4)


def test_an_unknown_hand_over_is_refused_by_name() -> None:
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(4)
    x = normal(1, 4, 4, 4)
    with pytest.raises(PolicyError, match=r"'renoised' is unknown; did you mean 'renoise'\?"):
        hand_over("renoised", scheduler, 0, x, x, x, (8, 8), never, normal(1, 4, 8, 8))
