"""Transformers over diffusion paths."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from transformers import BertConfig, BertModel

from tests.support.builders.parts import VOCABULARY, WIDTH, autoencoder_kl, beta_schedule, t5, word_tokenizer
from tests.support.builders.tiny_family import WORD_TOKENS, register


@register(
    "dit",
    scheduler="diffusion",
    other_size=None,
    conditional_first=True,
    text_tokens=0,
    text="class",
    # The pipeline always decodes.
    extra={"output_type": "pt"},
)
def dit() -> DiTPipeline:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=4, sample_size=16
    )
    return DiTPipeline(transformer=transformer, vae=autoencoder_kl(), scheduler=DDIMScheduler(clip_sample=False))


def _pixart(sample_size: int) -> dict[str, Any]:
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        # A third of the width embeds each of the three numbers of size conditioning.
        attention_head_dim=24,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        cross_attention_dim=48,
        caption_channels=WIDTH,
        sample_size=sample_size,
    )
    return {
        "transformer": transformer,
        "tokenizer": word_tokenizer(end=True),
        "text_encoder": t5(),
        "vae": autoencoder_kl(),
        "scheduler": DPMSolverMultistepScheduler(**beta_schedule()),
    }


_PIXART: dict[str, Any] = {
    "scheduler": "diffusion",
    "extra": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": WORD_TOKENS},
}


@register("pixart-alpha", **_PIXART)
def pixart_alpha() -> PixArtAlphaPipeline:
    return PixArtAlphaPipeline(**_pixart(16))


@register("pixart-alpha-1024", **_PIXART)
def pixart_alpha_1024() -> PixArtAlphaPipeline:
    """With size conditioning, which a sample size of 128 turns on; native are 256 x 256 pixels, calls are smaller."""
    return PixArtAlphaPipeline(**_pixart(128))


@register("pixart-sigma", **_PIXART)
def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(**_pixart(16))


# The pipeline pads to 77 and 256 tokens, and computes rotary embeddings for an autoencoder that shrinks by 8.
@register(
    "hunyuandit",
    scheduler="diffusion",
    size=(128, 128),
    other_size=(128, 256),
    text_tokens=77 + 256,
    extra={"use_resolution_binning": False},
)
def hunyuandit() -> HunyuanDiTPipeline:
    transformer = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        hidden_size=32,
        in_channels=4,
        patch_size=2,
        sample_size=16,
        # One middle block, and behind it two that read the skips of the first two.
        num_layers=6,
        mlp_ratio=2.0,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=WIDTH,
    )
    bert = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=WIDTH,
        max_position_embeddings=77,
        initializer_range=0.2,
    )
    return HunyuanDiTPipeline(
        vae=autoencoder_kl(levels=4),
        text_encoder=BertModel(bert),
        tokenizer=word_tokenizer(end=True),
        transformer=transformer,
        scheduler=DDPMScheduler(**beta_schedule(), prediction_type="v_prediction", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(end=True),
    )
