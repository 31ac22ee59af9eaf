"""SD1.5, SDXL, PixArt-Sigma and FLUX in their exact sizes with random weights: a call takes the time of the real one.

The configs are those of the published checkpoints' ``unet/config.json`` or ``transformer/config.json`` and
``scheduler/scheduler_config.json`` on the Hugging Face Hub; where a key has the default of diffusers' class
it is left out. There is neither a text encoder nor an autoencoder: prompts are random embeddings of the shape
that the pipelines make, and latents are not decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from studies import published
from studies.published import PIXART_XL, Published, stable_diffusion
from studies.workload import Workload

# The policies of the study halve, quarter and cut to a third: a multiple of twelve makes these exact.
STEPS = 12


@dataclass(frozen=True)
class FullSize(Published):
    """A published model to be timed.

    Attributes:
        prompts: makes the arguments that stand for so many prompts, given a function that makes random tensors.
        batch: pictures in a call: enough for the GPU, not Python, to set the pace.
        pixels: height and width of the pictures.
    """

    prompts: Callable[[Any, Callable[..., Tensor]], dict[str, Any]]
    batch: int
    pixels: int = 1024


def _sd15(unet: nn.Module) -> Any:
    # Its own PNDM calls the denoiser once more than it has steps.
    return stable_diffusion(
        unet, DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    )


def _sd15_prompts(config: Any, random: Callable[..., Tensor]) -> dict[str, Any]:
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {"guidance_scale": 7.5} | {name: random(SD15.text_tokens, config.cross_attention_dim) for name in names}


def _sdxl(unet: nn.Module) -> Any:
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )


def _sdxl_prompts(config: Any, random: Callable[..., Tensor]) -> dict[str, Any]:
    # Six numbers of size conditioning are embedded beside the pooled prompt.
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    made: dict[str, Any] = {"guidance_scale": 5.0}
    for sign in ("", "negative_"):
        made[f"{sign}prompt_embeds"] = random(SDXL.text_tokens, config.cross_attention_dim)
        made[f"{sign}pooled_prompt_embeds"] = random(pooled)
    return made


def _pixart(transformer: nn.Module) -> Any:
    # Its beta schedule, "linear" from 0.0001 to 0.02, and second-order DPM-Solver++ are the class's defaults.
    scheduler = DPMSolverMultistepScheduler()
    return PixArtSigmaPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=transformer, scheduler=scheduler
    )


def _pixart_prompts(config: Any, random: Callable[..., Tensor]) -> dict[str, Any]:
    # With an empty negative prompt, the default, its embeddings would be asked for twice.
    made: dict[str, Any] = {"guidance_scale": 4.5, "negative_prompt": None, "use_resolution_binning": False}
    for sign in ("", "negative_"):
        made[f"{sign}prompt_embeds"] = random(PIXART.text_tokens, config.caption_channels)
        made[f"{sign}prompt_attention_mask"] = torch.ones_like(made[f"{sign}prompt_embeds"][..., 0])
    return made


def _flux(transformer: nn.Module) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer,
    )


def _flux_prompts(config: Any, random: Callable[..., Tensor]) -> dict[str, Any]:
    return {
        # The guidance that was distilled into the model; there is no second branch.
        "guidance_scale": 3.5,
        "prompt_embeds": random(FLUX.text_tokens, config.joint_attention_dim),
        "pooled_prompt_embeds": random(config.pooled_projection_dim),
    }


SD15 = FullSize(
    source=published.SD15.source,
    denoiser=published.SD15.denoiser,
    config=published.SD15.config,
    parameters=published.SD15.parameters,
    pipeline=_sd15,
    prompts=_sd15_prompts,
    text_tokens=published.SD15.text_tokens,
    batch=16,
    pixels=512,
    guided=True,
)

SDXL = FullSize(
    source="stabilityai/stable-diffusion-xl-base-1.0",
    denoiser=UNet2DConditionModel,
    config={
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        # The number of heads, by an old name.
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    parameters=2_567_463_684,
    pipeline=_sdxl,
    prompts=_sdxl_prompts,
    text_tokens=77,
    batch=8,
    guided=True,
)

PIXART = FullSize(
    source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    denoiser=PixArtTransformer2DModel,
    config={**PIXART_XL, "interpolation_scale": 2, "use_additional_conditions": False},
    parameters=610_856_096,
    pipeline=_pixart,
    prompts=_pixart_prompts,
    text_tokens=300,
    batch=8,
    guided=True,
)

FLUX = FullSize(
    source="black-forest-labs/FLUX.1-dev",
    denoiser=FluxTransformer2DModel,
    config={
        "in_channels": 64,
        "patch_size": 1,
        "num_layers": 19,
        "num_single_layers": 38,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "axes_dims_rope": (16, 56, 56),
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
    },
    parameters=11_901_408_320,
    pipeline=_flux,
    prompts=_flux_prompts,
    text_tokens=512,
    batch=2,
    guided=False,
)

MODELS = {"sd15": SD15, "sdxl": SDXL, "pixart": PIXART, "flux": FLUX}


def workloads(
    names: Iterable[str] = tuple(MODELS), device: str = "cuda", dtype: torch.dtype = torch.bfloat16
) -> Iterator[tuple[Workload, bool]]:
    """Each model's workload and whether it is guided, one after the other: together they may not fit on the device."""
    for model in (MODELS[name] for name in names):
        yield build(model, device, dtype), model.guided
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def build(
    model: FullSize,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    *,
    pixels: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Workload:
    """A workload of ``model`` with random weights and prompts, the same ones every time.

    Args:
        pixels: height and width of the pictures, by default the model's own.
        changes: settings of the denoiser that differ from the published ones.
    """
    pixels = pixels or model.pixels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with _default_dtype(dtype), torch.device(device):
            denoiser = model.denoiser(**{**model.config, **(changes or {})})
        # Tables that a model computes for itself come in float32 all the same. diffusers' own ``to`` would warn
        # of layers to be kept in float32, of which these models have none.
        denoiser = nn.Module.to(denoiser, device, dtype).eval().requires_grad_(False)

        def random(*shape: int) -> Tensor:
            return torch.randn(model.batch, *shape, device=device, dtype=dtype)

        arguments = model.prompts(denoiser.config, random)
    pipe = model.pipeline(denoiser)
    pipe.set_progress_bar_config(disable=True)
    arguments |= {"height": pixels, "width": pixels}
    name = f"{model.source.rpartition('/')[2]}, {pixels} pixels"
    return Workload(name, pipe, arguments, STEPS, model.batch, model.text_tokens)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Weights of 12 billion parameters are made in the dtype they are used in, not in one of twice the size."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
