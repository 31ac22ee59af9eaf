"""Stable Diffusion, SDXL, LCM, and U-Nets over pixels."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from tests.support.builders.parts import autoencoder_kl, beta_schedule, clip, clip_tokenizer, ddim_scheduler
from tests.support.builders.tiny_family import CLIP_TOKENS, register


def _sd_unet(**changes: Any) -> UNet2DConditionModel:
    config: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**(config | changes))


def make_sd(pipeline: Any, scheduler: Any = None, **unet: Any) -> Any:
    return pipeline(
        vae=autoencoder_kl(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=_sd_unet(**unet),
        scheduler=scheduler or ddim_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


SD: dict[str, Any] = {"denoiser": "unet", "scheduler": "diffusion", "text_tokens": CLIP_TOKENS}


@register("sd", **SD)
def sd() -> StableDiffusionPipeline:
    return make_sd(StableDiffusionPipeline)


@register("sd-img2img", strength=0.75, **SD)
def sd_img2img() -> StableDiffusionImg2ImgPipeline:
    return make_sd(StableDiffusionImg2ImgPipeline)


@register("sd-inpaint", strength=1.0, inpaint=True, **SD)
def sd_inpaint() -> StableDiffusionInpaintPipeline:
    return make_sd(StableDiffusionInpaintPipeline)


@register("sd-inpaint-9", strength=1.0, inpaint=True, **SD)
def sd_inpaint_9() -> StableDiffusionInpaintPipeline:
    return make_sd(StableDiffusionInpaintPipeline, in_channels=9)


@register("lcm", **SD)
def lcm() -> StableDiffusionPipeline:
    return make_sd(StableDiffusionPipeline, LCMScheduler(**beta_schedule(), steps_offset=1))


@register("lcm-pipeline", guidance="none", extra={"guidance_scale": 8.5}, **SD)
def lcm_pipeline() -> LatentConsistencyModelPipeline:
    scheduler = LCMScheduler(**beta_schedule(), steps_offset=1)
    return make_sd(LatentConsistencyModelPipeline, scheduler, time_cond_proj_dim=16)


def _make_sdxl(pipeline: Any, **settings: Any) -> Any:
    unet = _sd_unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        # Six numbers of size conditioning and the pooled text.
        projection_class_embeddings_input_dim=6 * 8 + 16,
        cross_attention_dim=32,
    )
    return pipeline(
        vae=autoencoder_kl(),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**beta_schedule(), steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
        **settings,
    )


@register("sdxl", **SD)
def sdxl() -> StableDiffusionXLPipeline:
    return _make_sdxl(StableDiffusionXLPipeline)


@register("sdxl-img2img", strength=0.75, **SD)
def sdxl_img2img() -> StableDiffusionXLImg2ImgPipeline:
    return _make_sdxl(StableDiffusionXLImg2ImgPipeline)


@register("sdxl-inpaint", strength=0.75, inpaint=True, **SD)
def sdxl_inpaint() -> StableDiffusionXLInpaintPipeline:
    return _make_sdxl(StableDiffusionXLInpaintPipeline)


# Without text


def _pixel_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
    )


_PIXELS: dict[str, Any] = {
    "denoiser": "unet",
    "scheduler": "diffusion",
    "size": (16, 16),
    "other_size": None,
    "guidance": "none",
    "text_tokens": 0,
    "text": "none",
    "extra": {"output_type": "np"},
}


@register("ddpm", **_PIXELS)
def ddpm() -> DDPMPipeline:
    return DDPMPipeline(unet=_pixel_unet(), scheduler=DDPMScheduler())


@register("ddim", **_PIXELS)
def ddim() -> DDIMPipeline:
    return DDIMPipeline(unet=_pixel_unet(), scheduler=DDIMScheduler())
