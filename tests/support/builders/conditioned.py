"""Tiny pipelines that are given a picture to follow: ControlNets, adapters, and models that edit."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import torch
from diffusers import (
    ControlNetModel,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxFillPipeline,
    FluxKontextPipeline,
    QwenImageEditPipeline,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPAGPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
)
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tests.support.builders.flow_transformers import QWEN, TINY_SIZES, make_kandinsky5, qwen_transformer, qwen_vae
from tests.support.builders.parts import QWEN_TOKENS, qwen_vl, word_tokenizer
from tests.support.builders.sd3_and_flux import FLUX, SD3, flux, make_flux, sd3
from tests.support.builders.tiny_family import NEGATIVE, WORD_TOKENS, register
from tests.support.builders.unets import SD, make_sd, sd, sdxl

_UNCHECKED = {"requires_safety_checker": False}
_FULL_SIZE = frozenset({"resolution"})


def _beside(pipeline: Any, plain: Any, **more: Any) -> Any:
    """A pipeline of another class with the parts of a plain one, and more."""
    return pipeline(**plain.components, **more)


def _felt(network: nn.Module) -> Any:
    """What a fresh network beside the denoiser leaves at zero is drawn anew, so that it has an effect."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def _make_certain(vae: Any) -> None:
    """Make the autoencoder's latents so large that their variance, which is clamped below, is lost in rounding.

    For pipelines that draw from it, and not by the call's generator.
    """
    # In double precision too, and of means close to 0.
    large = 2.0**90
    (mean, log_variance), (weight, none) = vae.quant_conv.bias.chunk(2), vae.quant_conv.weight.chunk(2)
    with torch.no_grad():
        none.zero_()
        log_variance.fill_(-30.0)
        for parameter in (mean, weight):
            parameter.mul_(large)
        vae.post_quant_conv.weight.div_(large)
    vae.register_to_config(
        scaling_factor=vae.config.scaling_factor / large, shift_factor=vae.config.shift_factor * large
    )


def _unet_control(unet: Any) -> Any:
    return _felt(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8)))


@register("sd-controlnet", pictures=("image",), refuses=_FULL_SIZE, **SD)
def sd_controlnet() -> StableDiffusionControlNetPipeline:
    plain = sd()
    return _beside(StableDiffusionControlNetPipeline, plain, controlnet=_unet_control(plain.unet), **_UNCHECKED)


@register("sdxl-controlnet", pictures=("image",), refuses=_FULL_SIZE, **SD)
def sdxl_controlnet() -> StableDiffusionXLControlNetPipeline:
    plain = sdxl()
    controlnet = _unet_control(plain.unet)
    return _beside(StableDiffusionXLControlNetPipeline, plain, controlnet=controlnet, add_watermarker=False)


@register("sd3-controlnet", pictures=("control_image",), refuses=_FULL_SIZE, **SD3)
def sd3_controlnet() -> StableDiffusion3ControlNetPipeline:
    plain = sd3()
    controlnet = SD3ControlNetModel.from_config(plain.transformer.config, num_layers=3, extra_conditioning_channels=0)
    pipe = _beside(StableDiffusion3ControlNetPipeline, plain, controlnet=_felt(controlnet))
    _make_certain(pipe.vae)
    return pipe


@register("flux-controlnet", pictures=("control_image",), refuses=_FULL_SIZE, **FLUX)
def flux_controlnet() -> FluxControlNetPipeline:
    plain = flux()
    controlnet = FluxControlNetModel.from_config(plain.transformer.config, num_layers=2, num_single_layers=2)
    return _beside(FluxControlNetPipeline, plain, controlnet=_felt(controlnet))


# IP-Adapters

_EMBEDDING = 16


def _with_ip_adapters(pipe: Any, count: int = 1) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=_EMBEDDING,
        initializer_factor=10.0,
    )
    pipe.register_modules(
        image_encoder=CLIPVisionModelWithProjection(vision),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
    )
    pipe.unet._load_ip_adapter_weights([_ip_adapter(pipe.unet) for _ in range(count)], low_cpu_mem_usage=False)
    return pipe


def _ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Weights in the form that people download them in: four tokens of a picture, keys and values of every layer."""
    width = unet.config.cross_attention_dim
    layers = [name.removesuffix(".processor") for name in unet.attn_processors]
    attention: dict[str, torch.Tensor] = {}
    for number, name in enumerate(layers):
        if name.endswith("attn2"):
            sides = unet.get_submodule(name).to_k.weight.shape
            attention |= {f"{number}.to_{kind}_ip.weight": torch.randn(sides) for kind in ("k", "v")}
    projection = {"proj.weight": torch.randn(4 * width, _EMBEDDING), "proj.bias": torch.zeros(4 * width)}
    norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return {"image_proj": projection | norm, "ip_adapter": attention}


@register("sd-ip-adapter", ip_adapters=1, **SD)
def sd_ip_adapter() -> StableDiffusionPipeline:
    return _with_ip_adapters(sd())


@register("sdxl-ip-adapter", ip_adapters=3, **SD)
def sdxl_ip_adapter() -> StableDiffusionXLPipeline:
    return _with_ip_adapters(sdxl(), 3)


# T2I-Adapters


def _adapter(kind: str, shrinks_by: int, *channels: int) -> T2IAdapter:
    adapter = T2IAdapter(channels=list(channels), num_res_blocks=1, downscale_factor=shrinks_by, adapter_type=kind)
    with torch.no_grad():
        # Fresh ones hardly change the picture.
        for parameter in adapter.parameters():
            parameter.mul_(3)
    return adapter


@register("sd-adapter", pictures=("image",), refuses=_FULL_SIZE, **SD)
def sd_adapter() -> StableDiffusionAdapterPipeline:
    adapter = _adapter("full_adapter", 2, 16, 32, 32)
    return StableDiffusionAdapterPipeline(**_parts(sd(), "image_encoder"), adapter=adapter, **_UNCHECKED)


# The first of the U-Net's features that it adds to are behind a downsampler, the last in the middle block.
@register("sdxl-adapter", pictures=("image",), refuses=_FULL_SIZE, **SD)
def sdxl_adapter() -> StableDiffusionXLAdapterPipeline:
    adapter = _adapter("full_adapter_xl", 4, 16, 32, 32, 32)
    return StableDiffusionXLAdapterPipeline(**_parts(sdxl(), "image_encoder", "feature_extractor"), adapter=adapter)


def _parts(pipe: Any, *lacking: str) -> dict[str, Any]:
    return {name: part for name, part in pipe.components.items() if name not in lacking}


# Models that edit a picture


@register(
    "instruct-pix2pix",
    pictures=("image",),
    sized=False,
    branches=3,
    conditional_first=True,
    refuses=frozenset({"guidance"}),
    **SD,
)
def instruct_pix2pix() -> StableDiffusionInstructPix2PixPipeline:
    return make_sd(StableDiffusionInstructPix2PixPipeline, in_channels=8)


@register("sd-pag", refuses=frozenset({"guidance"}), perturbed=True, **SD)
def sd_pag() -> StableDiffusionPAGPipeline:
    return _beside(StableDiffusionPAGPipeline, sd(), pag_applied_layers=["mid", "up_blocks.1"], **_UNCHECKED)


@register("sdxl-pag", refuses=frozenset({"guidance"}), perturbed=True, **SD)
def sdxl_pag() -> StableDiffusionXLPAGPipeline:
    return _beside(StableDiffusionXLPAGPipeline, sdxl(), add_watermarker=False)


# Behind the latents the masked picture, and a mask of 2 x 2 pixels a latent.
@register(
    "flux-fill",
    guidance="none",
    strength=0.75,
    inpaint=True,
    tokens=(64, 48),
    extra={"max_sequence_length": WORD_TOKENS, "guidance_scale": 30.0},
)
def flux_fill() -> FluxFillPipeline:
    return make_flux(FluxFillPipeline, guidance_embeds=True, conditions=16 + 16)


@register(
    "flux-kontext",
    pictures=("image",),
    sized=True,
    other_size=None,
    tokens=(128, 16),
    refuses=_FULL_SIZE,
    **FLUX | {"extra": {"max_sequence_length": WORD_TOKENS, "max_area": 32 * 32, "_auto_resize": False}},
)
def flux_kontext() -> FluxKontextPipeline:
    return make_flux(FluxKontextPipeline)


class Kandinsky5I2IPipeline(diffusers.Kandinsky5I2IPipeline):  # type: ignore[misc]
    """With sizes in the list that a tiny model makes in a moment, and where the prompt begins in few words' tokens."""

    @functools.wraps(diffusers.Kandinsky5I2IPipeline.__init__)  # type: ignore[misc]
    def __init__(self, **components: Any) -> None:
        super().__init__(**components)
        self.resolutions = TINY_SIZES
        self.prompt_template_encode_start_idx = 47


# The word "user" and the first of the prompt's are one token to the tokenizer; six words, the picture's four tokens and
# three that mark ends follow.
@register(
    "kandinsky5-img2img",
    size=(128, 128),
    # A picture of another size has another number of tokens.
    other_size=None,
    sized=True,
    guidance="separate",
    conditional_first=True,
    text_tokens=1 + 6 + 4 + 3,
    channels_last=True,
    negative=NEGATIVE,
    pictures=("image",),
    pillow=True,
    refuses=_FULL_SIZE,
    extra={"max_sequence_length": 1 + 6 + 4 + 3},
)
def kandinsky5_img2img() -> Kandinsky5I2IPipeline:
    tokenizer = word_tokenizer(end=False, special=("<|im_start|>", "<|im_end|>", *QWEN_TOKENS))
    # Of half of the picture's sides the encoder is shown 56 x 56 pixels, 2 x 2 tokens of 28 x 28.
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor())
    return make_kandinsky5(Kandinsky5I2IPipeline, processor, qwen_vl(tokenizer), visual_cond=True)


# Of the pictures that Qwen2.5-VL reads. Four patches become a token; pictures are shrunk until four tokens are left.
_PATCH = 8
_PICTURE_TOKENS = 4


# The pipeline reads every picture at about 1024 x 1024 pixels, of which an autoencoder that shrinks by 32 leaves few
# latents. The other size is of a shape for which these, too, are packed without remainder. Of the template six tokens
# around the picture's and seven behind the prompt reach the denoiser.
@register(
    "qwen-image-edit",
    pictures=("image",),
    pillow=True,
    sized=True,
    tokens=(6 * 6 + 16 * 16, 16),
    refuses=_FULL_SIZE,
    **QWEN | {"size": (384, 384), "other_size": (512, 576), "text_tokens": 6 + _PICTURE_TOKENS + 7 + 7},
)
def qwen_image_edit() -> QwenImageEditPipeline:
    tokenizer = word_tokenizer(end=False, special=QWEN_TOKENS)
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=_PATCH, min_pixels=(2 * _PATCH) ** 2, max_pixels=(5 * _PATCH) ** 2
        ),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(patch_size=_PATCH),
    )
    return QwenImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen_vae(num_res_blocks=0, halvings=5),
        text_encoder=qwen_vl(tokenizer, patch_size=_PATCH, window_size=4 * _PATCH, initializer_range=0.2),
        tokenizer=tokenizer,
        processor=processor,
        transformer=qwen_transformer(),
    )
