"""A tiny random-weight stock pipeline of every supported family, built from configs alone.

``FAMILIES`` maps a name to a :class:`TinyFamily`, which knows how to build the pipeline and how to
call it. Weights are random but not degenerate: parameters that a fresh model sets to zero are drawn
anew, so that the output depends on the prompt and on every block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    ConfigMixin,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    ImagePipelineOutput,
    Kandinsky5Transformer3DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    ModelMixin,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.utils.pil_utils import numpy_to_pil
from diffusers.utils.torch_utils import randn_tensor
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

# Seven known words each, so that all fill the same number of tokens and the denoiser sees no padding.
PROMPTS = ("red cat on blue chair near tree", "green dog in black house under moon")
NEGATIVE = "blurry dark ugly noisy broken plain flat"
LONG_NEGATIVE = f"{NEGATIVE} red dog on moon"
CLIP_TOKENS = 16
WORD_TOKENS = 8
WIDTH = 32


@dataclass(frozen=True)
class TinyFamily:
    """How to build and to call the tiny pipeline of one family.

    Attributes:
        pipeline: Its class.
        make: Builds the pipeline; takes ``scheduler=`` in place of the family's own.
        denoiser: The pipeline's attribute that holds the denoiser.
        scheduler: Whether the family adds noise by a diffusion or by a straight (flow) path.
        size: Height and width in pixels; latents are 16 x 16, of DDPM and DDIM the pixels themselves.
        other_size: Another size that the pipeline takes, None where the size is fixed by the config.
        guidance: Both branches in one denoiser call, in two, or no guidance at all.
        conditional_first: Which branch comes first among the rows or calls of a guided step.
        text_tokens: How many tokens of text reach the denoiser, 0 where it reads no text.
        tokens: Number and width of those that a denoiser of packed latents is given: patches of 2 x 2 in a sequence.
        frames: Frames of a video, None for pictures.
        channels_last: Whether latents have height and width before their channels.
        strength: Of image-to-image pipelines: the fraction of the steps that is executed.
        scale: The call's argument for the guidance scale, and its values with and without guidance.
        guider: Whether that scale is no argument but the guider's, which :meth:`told` sets.
        text: What the call is told to depict by: a prompt, a class, or nothing.
        inpaint: Whether a mask says where to paint.
        sized: Whether the call takes a size; None where only a picture to begin with, or the config, sets it.
        branches: Of a guided step.
        perturbed: Whether a call has one more row a picture, after the others, guided or not.
        negative: The negative prompt, where guidance needs one or where it must fill as many tokens.
        pictures: Arguments that take a picture to follow for each that is made.
        pillow: Whether these take Pillow's pictures alone.
        ip_adapters: How many IP-Adapters the denoiser has, each of which is given a picture for the whole call.
        refuses: Fields of a policy that the pipeline cannot follow.
        extra: Further arguments of every call.
    """

    name: str
    pipeline: str
    make: Callable[..., Any]
    denoiser: str = "transformer"
    scheduler: Literal["diffusion", "flow"] = "flow"
    size: tuple[int, int] = (32, 32)
    other_size: tuple[int, int] | None = (32, 64)
    guidance: Literal["batched", "separate", "none"] = "batched"
    conditional_first: bool = False
    text_tokens: int = WORD_TOKENS
    tokens: tuple[int, int] = (64, 16)
    frames: int | None = None
    channels_last: bool = False
    strength: float | None = None
    scale: tuple[str, float, float] = ("guidance_scale", 4.0, 1.0)
    guider: bool = False
    text: Literal["prompt", "class", "none"] = "prompt"
    negative: str | None = None
    ip_adapters: int = 0
    refuses: frozenset[str] = frozenset()
    pictures: tuple[str, ...] = ()
    pillow: bool = False
    inpaint: bool = False
    sized: bool | None = None
    branches: int = 2
    perturbed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Whether the family can run with guidance."""
        return self.guidance != "none"

    @property
    def takes_size(self) -> bool:
        """Whether a call is told the size of its pictures."""
        if self.sized is not None:
            return self.sized
        return self.other_size is not None and (self.strength is None or self.inpaint)

    def executed_steps(self, steps: int = 4) -> int:
        """How many of ``num_inference_steps`` the pipeline executes."""
        if self.strength is None:
            return steps
        # Pipelines of diffusions leave out a step that strength halves, those of flows execute it.
        return int(steps * self.strength) if self.scheduler == "diffusion" else steps - int(steps * (1 - self.strength))

    def arguments(
        self,
        batch: int = 1,
        height: int | None = None,
        width: int | None = None,
        guidance: bool = True,
        seed: int = 0,
        steps: int = 4,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Fresh arguments of one call: pipelines change lists and generators that they are given."""
        size = (height or self.size[0], width or self.size[1])
        call: dict[str, Any] = {
            "num_inference_steps": steps,
            "generator": torch.Generator().manual_seed(seed),
            "output_type": "latent",
            **self.extra,
        }
        if self.text == "prompt":
            call["prompt"] = [PROMPTS[index % len(PROMPTS)] for index in range(batch)]
        elif self.text == "class":
            call["class_labels"] = [7 + 11 * index for index in range(batch)]
        else:
            call["batch_size"] = batch
        if self.guided:
            name, guided, unguided = self.scale
            call[name] = guided if guidance else unguided
            if self.negative is not None and guidance:
                call["negative_prompt"] = [self.negative] * batch
        if self.strength is not None:
            call["strength"] = self.strength
            call["image"] = _picture(batch, *size)
        call |= {name: _picture(batch, *size, pillow=self.pillow) for name in self.pictures}
        if self.ip_adapters:
            call["ip_adapter_image"] = list(_picture(self.ip_adapters, 8, 8)[:, None])
        if self.inpaint:
            call["mask_image"] = _mask(batch, *size)
        if self.other_size is None and size != self.size:
            raise ValueError(f"{self.name} has one size, {self.size}")
        if self.takes_size:
            call["height"], call["width"] = size
        if self.frames is not None:
            call["num_frames"] = self.frames
        return call | overrides

    def told(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the call itself takes of its arguments, once the guider knows the scale among them."""
        if self.guider:
            setattr(pipe.guider, self.scale[0], arguments[self.scale[0]])
        return {name: value for name, value in arguments.items() if not self.guider or name != self.scale[0]}

    def run(self, pipe: Any, *, by: Callable[..., Any] | None = None, **arguments: Any) -> torch.Tensor:
        """The latents, or the pixels where a pipeline returns no latents, of a call, which another may make."""
        result = returned((by or pipe)(**self.told(pipe, arguments)))
        return torch.from_numpy(result) if isinstance(result, np.ndarray) else result


def returned(output: Any) -> Any:
    """The pictures, or frames, in what a pipeline returns."""
    return next(getattr(output, name) for name in ("frames", "images", "image") if hasattr(output, name))


FAMILIES: dict[str, TinyFamily] = {}


def _register(name: str, **fields: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter the decorated builder, a function without arguments, among the families."""

    def enter(build: Callable[[], Any]) -> Callable[[], Any]:
        def make(scheduler: Any = None) -> Any:
            with _seeded():
                pipe = build()
                _prepare(getattr(pipe, fields.get("denoiser", "transformer")))
            if scheduler is not None:
                pipe.register_modules(scheduler=scheduler)
            for component in pipe.components.values():
                if isinstance(component, nn.Module):
                    component.eval().requires_grad_(False)
            pipe.set_progress_bar_config(disable=True)
            return pipe

        FAMILIES[name] = TinyFamily(name, build.__annotations__["return"], make, **fields)
        return build

    return enter


@contextmanager
def _seeded(seed: int = 0) -> Iterator[None]:
    """The same random numbers every time, and the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _prepare(denoiser: nn.Module) -> None:
    """Weights with which every block has an effect.

    What a fresh model leaves at zero is drawn anew, and PyTorch's default weights, which shrink the
    variance of what they are given to a third, are made to keep it.
    """
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        for module in denoiser.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                module.weight.mul_(3**0.5)


def _picture(batch: int, height: int, width: int, *, pillow: bool = False) -> Any:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(batch, 3, height, width, generator=generator)
    return numpy_to_pil(pictures.permute(0, 2, 3, 1).numpy()) if pillow else pictures


def _mask(batch: int, height: int, width: int) -> torch.Tensor:
    """1 where the picture is to be painted: its right half."""
    mask = torch.zeros(batch, 1, height, width)
    mask[..., width // 2 :] = 1
    return mask


# Text encoders and autoencoders


def _words() -> list[str]:
    return sorted({word for text in (*PROMPTS, NEGATIVE) for word in text.split()})


# Made anew for every pipeline: a tokenizer is told to pad and truncate by changing its state, so pipelines that share
# one may not run in several threads.
def _clip_tokenizer() -> CLIPTokenizer:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    merges: list[tuple[str, str]] = []
    for word in _words():
        letters = [*word[:-1], word[-1] + "</w>"]
        merges += [("".join(letters[:cut]), letters[cut]) for cut in range(1, len(letters))]
    merges = list(dict.fromkeys(merges))
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def _word_tokenizer(end: bool, special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a word, also of those that are ``special``, and with ``end`` one for the end of the text, as T5's."""
    template = "system Describe the image by detailing color shape size texture quantity text spatial relationships of"
    template += " objects and background user assistant im_start im_end <| |> :<| , < > Prompt Start"
    vocabulary = dict.fromkeys(["<pad>", "</s>", "<unk>", *_words(), *template.split()])
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


VOCABULARY = 64


def _clip(projected: bool = False, tokens: int = CLIP_TOKENS) -> Any:
    tokenizer = _clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokens,
        projection_dim=16,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
        # A fresh CLIP scales its weights down so far that prompts would hardly differ.
        initializer_factor=10.0,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _t5(kind: str = "t5") -> Any:
    configs, encoders = {"t5": T5Config, "umt5": UMT5Config}, {"t5": T5EncoderModel, "umt5": UMT5EncoderModel}
    config = configs[kind](
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=1, num_heads=2, pad_token_id=0
    )
    return encoders[kind](config)


def _decoder(config_class: Any, model_class: Any, layers: int = 2) -> Any:
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return model_class(config)


def _kl(channels: int = 4, levels: int = 2, **changes: Any) -> AutoencoderKL:
    """An autoencoder that shrinks each side by 2 to the power of levels - 1."""
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        force_upcast=False,
        **changes,
    )


# Stable Diffusion


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


def _beta_schedule() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _ddim() -> DDIMScheduler:
    return DDIMScheduler(**_beta_schedule(), steps_offset=1, clip_sample=False, set_alpha_to_one=False)


def _sd(pipeline: Any, scheduler: Any = None, **unet: Any) -> Any:
    return pipeline(
        vae=_kl(),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        unet=_sd_unet(**unet),
        scheduler=scheduler or _ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


_SD: dict[str, Any] = {"denoiser": "unet", "scheduler": "diffusion", "text_tokens": CLIP_TOKENS}


@_register("sd", **_SD)
def sd() -> StableDiffusionPipeline:
    return _sd(StableDiffusionPipeline)


@_register("sd-img2img", strength=0.75, **_SD)
def sd_img2img() -> StableDiffusionImg2ImgPipeline:
    return _sd(StableDiffusionImg2ImgPipeline)


@_register("sd-inpaint", strength=1.0, inpaint=True, **_SD)
def sd_inpaint() -> StableDiffusionInpaintPipeline:
    return _sd(StableDiffusionInpaintPipeline)


@_register("sd-inpaint-9", strength=1.0, inpaint=True, **_SD)
def sd_inpaint_9() -> StableDiffusionInpaintPipeline:
    return _sd(StableDiffusionInpaintPipeline, in_channels=9)


@_register("lcm", **_SD)
def lcm() -> StableDiffusionPipeline:
    return _sd(StableDiffusionPipeline, LCMScheduler(**_beta_schedule(), steps_offset=1))


@_register("lcm-pipeline", guidance="none", extra={"guidance_scale": 8.5}, **_SD)
def lcm_pipeline() -> LatentConsistencyModelPipeline:
    scheduler = LCMScheduler(**_beta_schedule(), steps_offset=1)
    return _sd(LatentConsistencyModelPipeline, scheduler, time_cond_proj_dim=16)


def _sdxl(pipeline: Any, **settings: Any) -> Any:
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
        vae=_kl(),
        text_encoder=_clip(),
        text_encoder_2=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_beta_schedule(), steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
        **settings,
    )


@_register("sdxl", **_SD)
def sdxl() -> StableDiffusionXLPipeline:
    return _sdxl(StableDiffusionXLPipeline)


@_register("sdxl-img2img", strength=0.75, **_SD)
def sdxl_img2img() -> StableDiffusionXLImg2ImgPipeline:
    return _sdxl(StableDiffusionXLImg2ImgPipeline)


@_register("sdxl-inpaint", strength=0.75, inpaint=True, **_SD)
def sdxl_inpaint() -> StableDiffusionXLInpaintPipeline:
    return _sdxl(StableDiffusionXLInpaintPipeline)


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


@_register("ddpm", **_PIXELS)
def ddpm() -> DDPMPipeline:
    return DDPMPipeline(unet=_pixel_unet(), scheduler=DDPMScheduler())


@_register("ddim", **_PIXELS)
def ddim() -> DDIMPipeline:
    return DDIMPipeline(unet=_pixel_unet(), scheduler=DDIMScheduler())


@_register(
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
    return DiTPipeline(transformer=transformer, vae=_kl(), scheduler=DDIMScheduler(clip_sample=False))


# Transformers over diffusion paths


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
        "tokenizer": _word_tokenizer(end=True),
        "text_encoder": _t5(),
        "vae": _kl(),
        "scheduler": DPMSolverMultistepScheduler(**_beta_schedule()),
    }


_PIXART: dict[str, Any] = {
    "scheduler": "diffusion",
    "extra": {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": WORD_TOKENS},
}


@_register("pixart-alpha", **_PIXART)
def pixart_alpha() -> PixArtAlphaPipeline:
    return PixArtAlphaPipeline(**_pixart(16))


@_register("pixart-alpha-1024", **_PIXART)
def pixart_alpha_1024() -> PixArtAlphaPipeline:
    """With size conditioning, which a sample size of 128 turns on; native are 256 x 256 pixels, calls are smaller."""
    return PixArtAlphaPipeline(**_pixart(128))


@_register("pixart-sigma", **_PIXART)
def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(**_pixart(16))


# The pipeline pads to 77 and 256 tokens, and computes rotary embeddings for an autoencoder that shrinks by 8.
@_register(
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
        vae=_kl(levels=4),
        text_encoder=BertModel(bert),
        tokenizer=_word_tokenizer(end=True),
        transformer=transformer,
        scheduler=DDPMScheduler(**_beta_schedule(), prediction_type="v_prediction", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=_t5(),
        tokenizer_2=_word_tokenizer(end=True),
    )


# Transformers over flows


_SD3: dict[str, Any] = {"text_tokens": CLIP_TOKENS + WORD_TOKENS, "extra": {"max_sequence_length": WORD_TOKENS}}

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
        vae=_kl(channels, shift_factor=0.1),
        text_encoder=_clip(projected=True),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(projected=True),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(),
        tokenizer_3=_word_tokenizer(end=True),
    )


@_register("sd3", **_SD3)
def sd3() -> StableDiffusion3Pipeline:
    return _sd3(StableDiffusion3Pipeline)


@_register("sd3-img2img", strength=0.75, sized=True, **_SD3)
def sd3_img2img() -> StableDiffusion3Img2ImgPipeline:
    return _sd3(StableDiffusion3Img2ImgPipeline)


@_register("sd3-inpaint", strength=0.75, inpaint=True, **_SD3)
def sd3_inpaint() -> StableDiffusion3InpaintPipeline:
    return _sd3(StableDiffusion3InpaintPipeline, _SD3_CHANNELS)


# With a mask and a masked picture behind the latents.
@_register("sd3-inpaint-33", strength=0.75, inpaint=True, **_SD3)
def sd3_inpaint_33() -> StableDiffusion3InpaintPipeline:
    return _sd3(StableDiffusion3InpaintPipeline, _SD3_CHANNELS, conditions=1 + _SD3_CHANNELS)


def _flux(pipeline: Any = FluxPipeline, guidance_embeds: bool = False, conditions: int = 0) -> Any:
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
        vae=_kl(shift_factor=0.1),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(),
        tokenizer_2=_word_tokenizer(end=True),
        transformer=transformer,
    )


_FLUX: dict[str, Any] = {
    "guidance": "separate",
    "conditional_first": True,
    "scale": ("true_cfg_scale", 4.0, 1.0),
    "negative": NEGATIVE,
    "extra": {"max_sequence_length": WORD_TOKENS},
}


@_register("flux", **_FLUX)
def flux() -> FluxPipeline:
    return _flux()


@_register("flux-img2img", strength=0.75, sized=True, **_FLUX)
def flux_img2img() -> FluxImg2ImgPipeline:
    return _flux(FluxImg2ImgPipeline)


@_register("flux-inpaint", strength=0.75, inpaint=True, **_FLUX)
def flux_inpaint() -> FluxInpaintPipeline:
    return _flux(FluxInpaintPipeline)


@_register("chroma", **_FLUX | {"scale": ("guidance_scale", 4.0, 1.0)})
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
        vae=_kl(shift_factor=0.1),
        text_encoder=_t5(),
        tokenizer=_word_tokenizer(end=True),
        transformer=transformer,
    )


@_register("flux-dev", guidance="none", extra={"max_sequence_length": WORD_TOKENS, "guidance_scale": 3.5})
def flux_dev() -> FluxPipeline:
    return _flux(guidance_embeds=True)


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
@_register("flux2", guidance="none", extra=_FLUX_2 | {"guidance_scale": 3.5})
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
    tokenizer = _word_tokenizer(end=False)
    # Without the system's message, which would fill all tokens.
    tokenizer.chat_template = "{% for message in messages[1:] %}{{ message['content'][0]['text'] }}{% endfor %}"
    return Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config), tokenizer=tokenizer, **_flux_2(guidance_embeds=True)
    )


@_register("flux2-klein", guidance="separate", conditional_first=True, extra=_FLUX_2)
def flux_2_klein() -> Flux2KleinPipeline:
    return Flux2KleinPipeline(
        text_encoder=_decoder(Qwen3Config, Qwen3ForCausalLM),
        tokenizer=_word_tokenizer(end=False),
        **_flux_2(guidance_embeds=False),
    )


@_register(
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
        tokenizer=_word_tokenizer(end=True),
        text_encoder=_decoder(Gemma2Config, Gemma2Model),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


# The pipeline shrinks by 8 whatever the autoencoder. It puts the system prompt and four more tokens in front of the
# prompt, but not of the negative prompt, which therefore is longer here.
@_register(
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
        vae=_kl(levels=4, shift_factor=0.1),
        text_encoder=_decoder(Gemma2Config, Gemma2Model),
        tokenizer=_word_tokenizer(end=False),
    )


@_register("auraflow", extra={"max_sequence_length": WORD_TOKENS})
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
        tokenizer=_word_tokenizer(end=True),
        text_encoder=_t5("umt5"),
        vae=_kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


# The prompt is put into a template of which two tokens before and seven after it reach the denoiser.
_QWEN: dict[str, Any] = {
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
        vae=_qwen_vae(num_res_blocks=1),
        text_encoder=_decoder(Qwen2Config, Qwen2Model),
        tokenizer=_word_tokenizer(end=False),
        transformer=_qwen_transformer(),
    )


def _qwen_transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=4,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def _qwen_vae(num_res_blocks: int, halvings: int = 3) -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1] * (halvings + 1),
        num_res_blocks=num_res_blocks,
        temperal_downsample=[False, *[True] * (halvings - 1)],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


@_register("qwen-image", **_QWEN)
def qwen_image() -> QwenImagePipeline:
    return _qwen(QwenImagePipeline)


@_register("qwen-image-img2img", strength=0.75, sized=True, **_QWEN)
def qwen_image_img2img() -> QwenImageImg2ImgPipeline:
    return _qwen(QwenImageImg2ImgPipeline)


@_register("qwen-image-inpaint", strength=0.75, inpaint=True, **_QWEN)
def qwen_image_inpaint() -> QwenImageInpaintPipeline:
    return _qwen(QwenImageInpaintPipeline)


# The pipeline pads to 1000 and 128 tokens; the second text is what the prompt quotes, here nothing.
_HUNYUAN_IMAGE: dict[str, Any] = {"text_tokens": 16 + WORD_TOKENS}


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
    pipe = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=vae,
        text_encoder=_decoder(Qwen2Config, Qwen2Model, layers=4),
        tokenizer=_word_tokenizer(end=False),
        text_encoder_2=_t5(),
        tokenizer_2=_word_tokenizer(end=True),
        transformer=transformer,
        # From its third step on it projects, and adds what it remembers.
        guider=None if distilled else AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
    )
    pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = 16, WORD_TOKENS
    return pipe


@_register("hunyuan-image", guidance="separate", conditional_first=True, guider=True, **_HUNYUAN_IMAGE)
def hunyuan_image() -> HunyuanImagePipeline:
    return _hunyuan_image(distilled=False)


@_register("hunyuan-image-distilled", guidance="none", extra={"distilled_guidance_scale": 3.5}, **_HUNYUAN_IMAGE)
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
        vae=_kl(shift_factor=0.1),
        text_encoder=_decoder(Qwen3Config, Qwen3Model),
        tokenizer=_word_tokenizer(end=False),
        transformer=transformer,
    )


@_register("z-image", **_Z_IMAGE)
def z_image() -> ZImagePipeline:
    return _z_image(ZImagePipeline)


@_register("z-image-img2img", strength=0.75, sized=True, **_Z_IMAGE)
def z_image_img2img() -> ZImageImg2ImgPipeline:
    return _z_image(ZImageImg2ImgPipeline)


@_register("z-image-inpaint", strength=0.75, inpaint=True, **_Z_IMAGE)
def z_image_inpaint() -> ZImageInpaintPipeline:
    return _z_image(ZImageInpaintPipeline)


# Prompts are filled up to a multiple of 16 tokens.
@_register("cogview4", guidance="separate", conditional_first=True, text_tokens=16, extra={"max_sequence_length": 16})
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
        tokenizer=_word_tokenizer(end=True),
        text_encoder=_decoder(GlmConfig, GlmModel),
        vae=_kl(),
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
QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def _qwen_vl(tokenizer: Any = None, **vision_changes: Any) -> Any:
    """With the tokenizer that it is to know the tokens of pictures by, and changes of how it sees them."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        # Frequencies for time, height and width, of the half of a head's width.
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
        **vision_changes,
    }
    numbers = range(VOCABULARY - len(QWEN_TOKENS), VOCABULARY)
    if tokenizer is not None:
        numbers = tokenizer.convert_tokens_to_ids(QWEN_TOKENS)
    names = ("vision_start", "vision_end", "image", "video")
    tokens = {f"{name}_token_id": number for name, number in zip(names, numbers, strict=True)}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))


# The prompt is put into a template of which two tokens before and three after it reach the denoiser.
@_register(
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
    return _kandinsky5(Kandinsky5T2IPipeline, _word_tokenizer(end=False), _qwen_vl())


def _kandinsky5(pipeline: Any, tokenizer: Any, text_encoder: Any, **changes: Any) -> Any:
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
        vae=_kl(levels=4),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        # The pipeline asks for so many tokens by number.
        text_encoder_2=_clip(tokens=77),
        tokenizer_2=_clip_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


@_register(
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
        tokenizer=_word_tokenizer(end=True),
        text_encoder=_t5("umt5"),
        vae=vae,
        scheduler=scheduler,
        transformer=transformer,
    )


# A pipeline and a denoiser that nobody listed


class GenericBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = GenericAttention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        context = torch.cat([self.norm1(hidden_states), encoder_hidden_states], dim=1)
        hidden_states = hidden_states + self.attention(self.norm1(hidden_states), context)
        return hidden_states + self.mlp(self.norm2(hidden_states))


class GenericAttention(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        query = self.query(hidden_states).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(2, (self.heads, -1)).transpose(1, 2).chunk(2, dim=-1)
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class GenericTransformer(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Convolutional patches, a row of blocks that read the text, no position embedding."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, in_channels: int = 4, width: int = 32, num_layers: int = 4, sample_size: int = 16) -> None:
        super().__init__()
        self.patch = nn.Conv2d(in_channels, width, 2, stride=2)
        self.time = nn.Linear(1, width)
        self.blocks = nn.ModuleList([GenericBlock(width) for _ in range(num_layers)])
        self.out = nn.ConvTranspose2d(width, in_channels, 2, stride=2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool = True,
    ) -> tuple[torch.Tensor]:
        patches = self.patch(hidden_states)
        tokens = patches.flatten(2).transpose(1, 2) + self.time(timestep.to(patches.dtype)[:, None] / 1000)[:, None]
        for block in self.blocks:
            tokens = block(tokens, encoder_hidden_states)
        return (self.out(tokens.transpose(1, 2).unflatten(2, patches.shape[-2:])),)


class GenericPipeline(DiffusionPipeline):  # type: ignore[misc]
    """The least that a text-to-image pipeline of diffusers has."""

    def __init__(self, tokenizer: Any, text_encoder: Any, transformer: Any, vae: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, transformer=transformer, vae=vae, scheduler=scheduler
        )
        self.vae_scale_factor = 2

    def encode_prompt(self, prompts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=WORD_TOKENS, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids)[0]

    def prepare_latents(
        self, batch_size: int, height: int, width: int, generator: Any, latents: torch.Tensor | None = None
    ) -> torch.Tensor:
        channels, scale = self.transformer.config.in_channels, self.vae_scale_factor
        if latents is None:
            latents = randn_tensor((batch_size, channels, height // scale, width // scale), generator=generator)
        return latents * self.scheduler.init_noise_sigma

    @torch.no_grad()
    def __call__(
        self,
        prompt: list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        guidance_scale: float = 4.0,
        generator: Any = None,
        latents: torch.Tensor | None = None,
        output_type: str = "latent",
    ) -> ImagePipelineOutput:
        native = self.transformer.config.sample_size * self.vae_scale_factor
        guided = guidance_scale > 1
        text = self.encode_prompt([""] * len(prompt) + prompt if guided else prompt)
        self.scheduler.set_timesteps(num_inference_steps)
        latents = self.prepare_latents(len(prompt), height or native, width or native, generator, latents)
        for timestep in self.progress_bar(self.scheduler.timesteps):
            sample = torch.cat([latents, latents]) if guided else latents
            sample = self.scheduler.scale_model_input(sample, timestep)
            rows = timestep.expand(len(sample))
            prediction = self.transformer(sample, timestep=rows, encoder_hidden_states=text, return_dict=False)[0]
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + guidance_scale * (with_text - without)
            latents = self.scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        return ImagePipelineOutput(images=latents if output_type == "latent" else self.decode(latents))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)


@_register("generic", scheduler="diffusion")
def generic() -> GenericPipeline:
    tokenizer = _word_tokenizer(end=True)
    tokenizer.model_max_length = WORD_TOKENS
    return GenericPipeline(
        tokenizer=tokenizer, text_encoder=_t5(), transformer=GenericTransformer(), vae=_kl(), scheduler=_ddim()
    )


# Enters more families.
from tests.support import builders_conditioned  # noqa: E402, F401
