"""A drift of few pairs, mended by what all pictures say."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from studies.proxy.judges import regressed

SEEDS = st.integers(0, 2**31)
PICTURES, FEW, BANDS = 128, 8, 27


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SEEDS)
def test_where_the_exact_run_is_the_full_run_all_pictures_count(seed: int) -> None:
    changes = normal(seed, PICTURES, BANDS)
    torch.testing.assert_close(regressed(changes[:FEW], changes), changes.mean(0))


@given(SEEDS)
def test_without_more_pictures_or_any_change_it_is_the_mean(seed: int) -> None:
    changes, others = normal(seed, FEW, BANDS), normal(seed + 1, FEW, BANDS)
    torch.testing.assert_close(regressed(changes, others), changes.mean(0))
    torch.testing.assert_close(regressed(changes, torch.zeros(PICTURES, BANDS)), changes.mean(0))


def test_changes_that_go_together_are_known_better_and_others_no_worse() -> None:
    errors: dict[str, list[Tensor]] = {"together, mean": [], "together": [], "apart, mean": [], "apart": []}
    for seed in range(300):
        from_full = normal(seed, PICTURES, BANDS)
        together = from_full + 0.3 * normal(seed + 1000, PICTURES, BANDS)
        apart = normal(seed + 2000, PICTURES, BANDS)
        for name, changes in (("together", together), ("apart", apart)):
            exact = changes.mean(0)
            errors[f"{name}, mean"].append((changes[:FEW].mean(0) - exact).square().mean())
            errors[name].append((regressed(changes[:FEW], from_full) - exact).square().mean())
    wrong = {name: torch.stack(each).mean().sqrt() for name, each in errors.items()}
    assert wrong["together"] < 0.4 * wrong["together, mean"]
    assert wrong["apart"] < 1.1 * wrong["apart, mean"]
