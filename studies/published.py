"""Published architectures, for what can be told of a model without its weights.

Configs are those of the checkpoints on the Hugging Face Hub; where a key has the default of diffusers' class it
is left out. Three of them are made with random weights and timed besides: :mod:`studies.full_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import nn


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        source: the checkpoint whose configs these are, on the Hugging Face Hub unless it says otherwise.
        denoiser: its class and config.
        parameters: of the published denoiser.
        pipeline: makes the pipeline around a denoiser, with neither a text encoder nor an autoencoder.
        text_tokens: tokens of one prompt as the pipeline pads it.
        guided: whether the pipeline computes two branches.
    """

    source: str
    denoiser: Any
    config: Mapping[str, Any]
    parameters: int
    pipeline: Callable[[nn.Module], Any]
    text_tokens: int
    guided: bool


def weightless(model: Published) -> Any:
    """The pipeline around a denoiser on the ``meta`` device: it has every shape and no values."""
    with torch.device("meta"):
        denoiser = model.denoiser(**model.config)
    return model.pipeline(denoiser)


def stable_diffusion(unet: nn.Module, scheduler: Any) -> Any:
    """The pipeline around a U-Net, without text encoder, autoencoder and safety checker."""
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd15(unet: nn.Module) -> Any:
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    return stable_diffusion(unet, scheduler)


def _sd21(unet: nn.Module) -> Any:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return stable_diffusion(unet, scheduler)


def _ldm(unet: nn.Module) -> Any:
    # diffusers has no pipeline of its own for it. Its class label is an embedding in the place of a prompt.
    scheduler = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return stable_diffusion(unet, scheduler)


def _ddpm(unet: nn.Module) -> Any:
    return DDIMPipeline(unet=unet, scheduler=DDIMScheduler())


def _pixart_alpha(transformer: nn.Module) -> Any:
    # Its beta schedule, "linear" from 0.0001 to 0.02, and second-order DPM-Solver++ are the class's defaults.
    return PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


SD15 = Published(
    source="stable-diffusion-v1-5/stable-diffusion-v1-5",
    denoiser=UNet2DConditionModel,
    config={"sample_size": 64, "cross_attention_dim": 768},
    parameters=859_520_964,
    pipeline=_sd15,
    text_tokens=77,
    guided=True,
)

SD21 = Published(
    source="stabilityai/stable-diffusion-2-1",
    denoiser=UNet2DConditionModel,
    config={
        "sample_size": 96,
        "cross_attention_dim": 1024,
        # The number of heads, by an old name.
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    parameters=865_910_724,
    pipeline=_sd21,
    text_tokens=77,
    guided=True,
)

PIXART_XL: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 8,
    "patch_size": 2,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
}
"""What PixArt-alpha and PixArt-Sigma have in common at 1024 pixels."""

PIXART_ALPHA = Published(
    source="PixArt-alpha/PixArt-XL-2-1024-MS",
    denoiser=PixArtTransformer2DModel,
    config=PIXART_XL,
    parameters=611_349_152,
    pipeline=_pixart_alpha,
    text_tokens=120,
    guided=True,
)

LDM_4_G = Published(
    source="CompVis/latent-diffusion on GitHub, configs/latent-diffusion/cin256-v2.yaml",
    denoiser=UNet2DConditionModel,
    config={
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (192, 384, 576, 960),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
        "attention_head_dim": 1,
        "cross_attention_dim": 512,
    },
    parameters=400_920_579,
    pipeline=_ldm,
    text_tokens=1,
    guided=True,
)

_DDPM: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "attention_head_dim": None,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
}

DDPM_CIFAR10 = Published(
    source="google/ddpm-cifar10-32",
    denoiser=UNet2DModel,
    config={
        **_DDPM,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", *("DownBlock2D",) * 2),
        "up_block_types": (*("UpBlock2D",) * 2, "AttnUpBlock2D", "UpBlock2D"),
    },
    parameters=35_746_307,
    pipeline=_ddpm,
    text_tokens=0,
    guided=False,
)

DDPM_BEDROOM = Published(
    source="google/ddpm-bedroom-256",
    denoiser=UNet2DModel,
    config={
        **_DDPM,
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    },
    parameters=113_673_219,
    pipeline=_ddpm,
    text_tokens=0,
    guided=False,
)

MODELS = (SD15, SD21, PIXART_ALPHA, LDM_4_G, DDPM_CIFAR10, DDPM_BEDROOM)
