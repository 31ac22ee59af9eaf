"""Tiny random-weight pipelines built from configs: every test that needs no trained model uses these."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_TOKENS = 8


@cache
def _tokenizer() -> CLIPTokenizer:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=TEXT_TOKENS)


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(config | changes))


def tiny_sd(seed: int = 0, scheduler: Any = None, **unet: Any) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of 32x32 pictures and 8x8 latents that runs a step in milliseconds."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
    )
    pipe = StableDiffusionPipeline(
        vae=AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        ),
        text_encoder=CLIPTextModel(text_config).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet(**unet).eval(),
        scheduler=scheduler or DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
