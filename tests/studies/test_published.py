"""The published architectures: their parameters on the meta device, and pipelines without weights."""

from __future__ import annotations

import pytest

from autotune.cost import Pricer
from autotune.runtime.models import denoiser_of
from studies.published import MODELS, Published, weightless


@pytest.mark.parametrize("model", MODELS, ids=[model.source for model in MODELS])
def test_the_denoiser_has_as_many_parameters_as_the_published_one_and_can_be_priced(model: Published) -> None:
    pipe = weightless(model)
    parameters = list(denoiser_of(pipe).parameters())
    assert all(parameter.is_meta for parameter in parameters)
    assert sum(parameter.numel() for parameter in parameters) == model.parameters
    assert Pricer(pipe, text_tokens=model.text_tokens).structure.units
