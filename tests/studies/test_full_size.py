"""The models of published sizes: their parameters on the meta device, and calls of them in miniature."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studies.full_size import FLUX, MODELS, PIXART, SD15, SDXL, STEPS, FullSize, build

_SOURCES = [model.source for model in MODELS.values()]

# As few and as narrow layers as the same classes allow.
_SMALL: dict[str, dict[str, Any]] = {
    SD15.source: {
        "sample_size": 8,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    },
    SDXL.source: {
        "sample_size": 8,
        "block_out_channels": (32, 32, 64),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (2, 2, 4),
        "cross_attention_dim": 16,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 16,
    },
    PIXART.source: {
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 16,
    },
    FLUX.source: {
        "num_layers": 1,
        "num_single_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
        "joint_attention_dim": 16,
        "pooled_projection_dim": 16,
    },
}


@pytest.mark.parametrize("model", MODELS.values(), ids=_SOURCES)
def test_the_denoiser_has_as_many_parameters_as_the_published_one(model: FullSize) -> None:
    with torch.device("meta"):
        denoiser = model.denoiser(**model.config)
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == model.parameters


@pytest.mark.parametrize("model", MODELS.values(), ids=_SOURCES)
def test_the_workload_runs_and_its_calls_are_those_of_the_model(model: FullSize) -> None:
    before = torch.get_default_dtype(), torch.get_rng_state()
    workload = build(model, "cpu", torch.bfloat16, pixels=64, changes=_SMALL[model.source])
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (workload.steps, workload.batch, workload.text_tokens) == (STEPS, model.batch, model.text_tokens)

    pipe = workload.pipe
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    calls: list[dict[str, Any]] = []
    outputs: list[torch.Tensor] = []
    denoiser.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    denoiser.register_forward_hook(lambda _, args, output: outputs.append(output[0]))
    workload.arguments["num_inference_steps"] = 2
    assert workload.run() > 0

    assert len(calls) == 2
    text = calls[0]["encoder_hidden_states"]
    assert text.shape[:2] == (model.batch * (2 if model.guided else 1), model.text_tokens)
    assert text.dtype == torch.bfloat16
    assert all(bool(output.isfinite().all()) for output in outputs)
