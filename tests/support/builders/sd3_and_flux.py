"""Stable Diffusion 3, FLUX and what descends from it."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

from tests.support.builders.parts import (
    VOCABULARY,
    WIDTH,
    autoencoder_kl,
    clip,
    clip_tokenizer,
    language_model,
    t5,
    word_tokenizer,
)
from tests.support.builders.tiny_family import CLIP_TOKENS, NEGATIVE, WORD_TOKENS, register

SD3: dict[str, Any] = {"text_tokens": CLIP_TOKENS + WORD_TOKENS, "extra": {"max_sequence_length": WORD_TOKENS}}

# The inpainting pipeline takes no other number.
_SD3_CHANNELS = 16


def _sd3(pipeline: Any, channels: int = 4, conditions: int = 0) -> Any:
    """``conditions``: channels of the denoiser's input besides the latents."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=channels + conditions,
        out_channels=channels,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=24,
        # As in 3.5 medium: some blocks have a second, self-attention.
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    return pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder_kl(channels, shift_factor=0.1),
        text_encoder=clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=word_tokenizer(end=True),
    )


@register("sd3", **SD3)
def sd3() -> StableDiffusion3Pipeline:
    return _sd3(StableDiffusion3Pipeline)


@register("sd3-img2img", strength=0.75, sized=True, **SD3)
def sd3_img2img() -> StableDiffusion3Img2ImgPipeline:
    return _sd3(StableDiffusion3Img2ImgPipeline)


@register("sd3-inpaint", strength=0.75, inpaint=True, **SD3)
def sd3_inpaint() -> StableDiffusion3InpaintPipeline:
    return _sd3(StableDiffusion3InpaintPipeline, _SD3_CHANNELS)


# With a mask and a masked picture behind the latents.
@register("sd3-inpaint-33", strength=0.75, inpaint=True, **SD3)
def sd3_inpaint_33() -> StableDiffusion3InpaintPipeline:
    return _sd3(StableDiffusion3InpaintPipeline, _SD3_CHANNELS, conditions=1 + _SD3_CHANNELS)


def make_flux(pipeline: Any = FluxPipeline, guidance_embeds: bool = False, conditions: int = 0) -> Any:
    transformer = FluxTransformer2DModel(
        in_channels=16 + conditions,
        out_channels=16,
        num_layers=4,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder_kl(shift_factor=0.1),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(end=True),
        transformer=transformer,
    )


FLUX: dict[str, Any] = {
    "guidance": "separate",
    "conditional_first": True,
    "scale": ("true_cfg_scale", 4.0, 1.0),
    "negative": NEGATIVE,
    "extra": {"max_sequence_length": WORD_TOKENS},
}


@register("flux", **FLUX)
def flux() -> FluxPipeline:
    return make_flux()


@register("flux-img2img", strength=0.75, sized=True, **FLUX)
def flux_img2img() -> FluxImg2ImgPipeline:
    return make_flux(FluxImg2ImgPipeline)


@register("flux-inpaint", strength=0.75, inpaint=True, **FLUX)
def flux_inpaint() -> FluxInpaintPipeline:
    return make_flux(FluxInpaintPipeline)


@register("chroma", **FLUX | {"scale": ("guidance_scale", 4.0, 1.0)})
def chroma() -> ChromaPipeline:
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=4,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder_kl(shift_factor=0.1),
        text_encoder=t5(),
        tokenizer=word_tokenizer(end=True),
        transformer=transformer,
    )


@register("flux-dev", guidance="none", extra={"max_sequence_length": WORD_TOKENS, "guidance_scale": 3.5})
def flux_dev() -> FluxPipeline:
    return make_flux(guidance_embeds=True)


def _flux_2(guidance_embeds: bool) -> dict[str, Any]:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
    )
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=4,
        num_single_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": vae,
        "transformer": transformer,
    }


_FLUX_2: dict[str, Any] = {"max_sequence_length": WORD_TOKENS, "text_encoder_out_layers": (2,)}


# Its text encoder sees pictures too, but the pipeline gives it none.
@register("flux2", guidance="none", extra=_FLUX_2 | {"guidance_scale": 3.5})
def flux_2() -> Flux2Pipeline:
    text = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 16,
    }
    config = Mistral3Config(
        text_config={"model_type": "mistral", "initializer_range": 0.2, **text, **heads},
        vision_config={"model_type": "pixtral", **vision},
    )
    tokenizer = word_tokenizer(end=False)
    # Without the system's message, which would fill all tokens.
    tokenizer.chat_template = "{% for message in messages[1:] %}{{ message['content'][0]['text'] }}{% endfor %}"
    return Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config), tokenizer=tokenizer, **_flux_2(guidance_embeds=True)
    )


@register("flux2-klein", guidance="separate", conditional_first=True, extra=_FLUX_2)
def flux_2_klein() -> Flux2KleinPipeline:
    return Flux2KleinPipeline(
        text_encoder=language_model(Qwen3Config, Qwen3ForCausalLM),
        tokenizer=word_tokenizer(end=False),
        **_flux_2(guidance_embeds=False),
    )
