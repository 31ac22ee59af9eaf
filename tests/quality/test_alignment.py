from __future__ import annotations

import pytest
import torch

from autotune.quality import prompt_alignment, shuffled_alignment


def test_shuffled_alignment_is_the_mean_over_all_wrong_pairs() -> None:
    image, text = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    cosine = image @ text.T
    wrong = [float(cosine[i, j]) for i in range(6) for j in range(6) if i != j]
    assert float(shuffled_alignment(image, text).mean()) == pytest.approx(sum(wrong) / 30, abs=1e-12)
    with pytest.raises(ValueError, match="at least two"):
        shuffled_alignment(image[:1], text[:1])
    with pytest.raises(ValueError, match="one row per prompt"):
        prompt_alignment(image, text[:3])
