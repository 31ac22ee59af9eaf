"""Further transformers over flows."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5Transformer3DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
)

from tests.support.builders.parts import (
    WIDTH,
    autoencoder_kl,
    clip,
    clip_tokenizer,
    language_model,
    qwen_vl,
    t5,
    word_tokenizer,
)
from tests.support.builders.tiny_family import LONG_NEGATIVE, NEGATIVE, WORD_TOKENS, register


@register(
    "sana",
    extra={
        "use_resolution_binning": False,
        "max_sequence_length": WORD_TOKENS,
        "complex_human_instruction": None,
    },
)
def sana() -> SanaPipeline:
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        num_layers=4,
        sample_size=16,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
    )
    # As shipped: a multistep solver on a flow.
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return SanaPipeline(
        tokenizer=word_tokenizer(end=True),
        text_encoder=language_model(Gemma2Config, Gemma2Model),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


# The pipeline shrinks by 8 whatever the autoencoder. It puts the system prompt and four more tokens in front of the
# prompt, but not of the negative prompt, which therefore is longer here.
@register(
    "lumina2",
    size=(128, 128),
    other_size=(128, 256),
    guidance="separate",
    conditional_first=True,
    text_tokens=11,
    negative=LONG_NEGATIVE,
    extra={"max_sequence_length": 11, "system_prompt": ""},
)
def lumina2() -> Lumina2Pipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=16,
        in_channels=4,
        hidden_size=48,
        num_layers=4,
        num_refiner_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 8, 8),
        axes_lens=(64, 64, 64),
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=autoencoder_kl(levels=4, shift_factor=0.1),
        text_encoder=language_model(Gemma2Config, Gemma2Model),
        tokenizer=word_tokenizer(end=False),
    )


@register("auraflow", extra={"max_sequence_length": WORD_TOKENS})
def auraflow() -> AuraFlowPipeline:
    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=4,
        num_single_dit_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=24 * 24,
    )
    return AuraFlowPipeline(
        tokenizer=word_tokenizer(end=True),
        text_encoder=t5("umt5"),
        vae=autoencoder_kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


# The prompt is put into a template of which two tokens before and seven after it reach the denoiser.
QWEN: dict[str, Any] = {
    "size": (128, 128),
    "other_size": (128, 256),
    "guidance": "separate",
    "conditional_first": True,
    "text_tokens": 2 + 7 + 7,
    "scale": ("true_cfg_scale", 4.0, 1.0),
    "negative": NEGATIVE,
}


def _qwen(pipeline: Any) -> Any:
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen_vae(num_res_blocks=1),
        text_encoder=language_model(Qwen2Config, Qwen2Model),
        tokenizer=word_tokenizer(end=False),
        transformer=qwen_transformer(),
    )


def qwen_transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def qwen_vae(num_res_blocks: int, halvings: int = 3) -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1] * (halvings + 1),
        num_res_blocks=num_res_blocks,
        temperal_downsample=[False, *[True] * (halvings - 1)],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


@register("qwen-image", **QWEN)
def qwen_image() -> QwenImagePipeline:
    return _qwen(QwenImagePipeline)


@register("qwen-image-img2img", strength=0.75, sized=True, **QWEN)
def qwen_image_img2img() -> QwenImageImg2ImgPipeline:
    return _qwen(QwenImageImg2ImgPipeline)


@register("qwen-image-inpaint", strength=0.75, inpaint=True, **QWEN)
def qwen_image_inpaint() -> QwenImageInpaintPipeline:
    return _qwen(QwenImageInpaintPipeline)


# The second text is what the prompt quotes, here nothing.
_HUNYUAN_IMAGE: dict[str, Any] = {"text_tokens": 16 + WORD_TOKENS}


def _pad_to_few_tokens() -> None:
    """The pipeline pads to 1,000 and 128 tokens, every copy and every loaded one anew: nearly all of what it takes."""
    made = HunyuanImagePipeline.__init__

    @functools.wraps(made)
    def with_few(self: HunyuanImagePipeline, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        self.tokenizer_max_length, self.tokenizer_2_max_length = 16, WORD_TOKENS

    HunyuanImagePipeline.__init__ = with_few  # type: ignore[method-assign]


_pad_to_few_tokens()


def _hunyuan_image(distilled: bool) -> HunyuanImagePipeline:
    transformer = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=4,
        num_single_layers=4,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(8, 8),
        guidance_embeds=distilled,
        use_meanflow=distilled,
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=32,
        scaling_factor=0.75,
    )
    return HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=vae,
        text_encoder=language_model(Qwen2Config, Qwen2Model, layers=4),
        tokenizer=word_tokenizer(end=False),
        text_encoder_2=t5(),
        tokenizer_2=word_tokenizer(end=True),
        transformer=transformer,
        # From its third step on it projects, and adds what it remembers.
        guider=None if distilled else AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
    )


@register("hunyuan-image", guidance="separate", conditional_first=True, guider=True, **_HUNYUAN_IMAGE)
def hunyuan_image() -> HunyuanImagePipeline:
    return _hunyuan_image(distilled=False)


@register("hunyuan-image-distilled", guidance="none", extra={"distilled_guidance_scale": 3.5}, **_HUNYUAN_IMAGE)
def hunyuan_image_distilled() -> HunyuanImagePipeline:
    return _hunyuan_image(distilled=True)


# The denoiser gets the tokens unpadded and pads them, and the patches too, to a multiple of 32 itself.
_Z_IMAGE: dict[str, Any] = {
    "conditional_first": True,
    "text_tokens": 7,
    "scale": ("guidance_scale", 4.0, 0.0),
    "negative": NEGATIVE,
    "extra": {"max_sequence_length": 16},
}


def _z_image(pipeline: Any) -> Any:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=48,
        n_layers=4,
        n_refiner_layers=2,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 8, 8],
        axes_lens=[128, 64, 64],
    )
    return pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder_kl(shift_factor=0.1),
        text_encoder=language_model(Qwen3Config, Qwen3Model),
        tokenizer=word_tokenizer(end=False),
        transformer=transformer,
    )


@register("z-image", **_Z_IMAGE)
def z_image() -> ZImagePipeline:
    return _z_image(ZImagePipeline)


@register("z-image-img2img", strength=0.75, sized=True, **_Z_IMAGE)
def z_image_img2img() -> ZImageImg2ImgPipeline:
    return _z_image(ZImageImg2ImgPipeline)


@register("z-image-inpaint", strength=0.75, inpaint=True, **_Z_IMAGE)
def z_image_inpaint() -> ZImageInpaintPipeline:
    return _z_image(ZImageInpaintPipeline)


# Prompts are filled up to a multiple of 16 tokens.
@register("cogview4", guidance="separate", conditional_first=True, text_tokens=16, extra={"max_sequence_length": 16})
def cogview4() -> CogView4Pipeline:
    transformer = CogView4Transformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=32,
        condition_dim=8,
        rope_axes_dim=(16, 16),
    )
    return CogView4Pipeline(
        tokenizer=word_tokenizer(end=True),
        text_encoder=language_model(GlmConfig, GlmModel),
        vae=autoencoder_kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
    )


# The pipeline makes sizes of its list alone, at the least of 1024 x 1024 pixels.
class Kandinsky5T2IPipeline(diffusers.Kandinsky5T2IPipeline):  # type: ignore[misc]
    """With sizes in the list, width and height, that a tiny model makes in a moment."""

    @functools.wraps(diffusers.Kandinsky5T2IPipeline.__init__)  # type: ignore[misc]
    def __init__(self, **components: Any) -> None:
        super().__init__(**components)
        self.resolutions = TINY_SIZES


TINY_SIZES = [(128, 128), (256, 128), (144, 128), (128, 64), (64, 64)]


# The prompt is put into a template of which two tokens before and three after it reach the denoiser.
@register(
    "kandinsky5",
    size=(128, 128),
    other_size=(128, 256),
    guidance="separate",
    conditional_first=True,
    text_tokens=2 + 7 + 3,
    channels_last=True,
    negative=NEGATIVE,
    extra={"max_sequence_length": 2 + 7 + 3},
)
def kandinsky5() -> Kandinsky5T2IPipeline:
    return make_kandinsky5(Kandinsky5T2IPipeline, word_tokenizer(end=False), qwen_vl())


def make_kandinsky5(pipeline: Any, tokenizer: Any, text_encoder: Any, **changes: Any) -> Any:
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=WIDTH,
        in_text_dim2=16,
        time_dim=16,
        model_dim=32,
        ff_dim=64,
        num_text_blocks=2,
        num_visual_blocks=4,
        axes_dims=(4, 6, 6),
        **changes,
    )
    return pipeline(
        transformer=transformer,
        vae=autoencoder_kl(levels=4),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        # The pipeline asks for so many tokens by number.
        text_encoder_2=clip(tokens=77),
        tokenizer_2=clip_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


@register(
    "wan",
    size=(128, 128),
    other_size=(128, 256),
    guidance="separate",
    conditional_first=True,
    frames=5,
    negative=NEGATIVE,
    extra={"max_sequence_length": WORD_TOKENS},
)
def wan() -> WanPipeline:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=64,
        num_layers=4,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )
    # As shipped: a multistep solver on a flow.
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return WanPipeline(
        tokenizer=word_tokenizer(end=True),
        text_encoder=t5("umt5"),
        vae=vae,
        scheduler=scheduler,
        transformer=transformer,
    )
