"""A pipeline and a denoiser that nobody listed."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.support.builders.parts import autoencoder_kl, ddim_scheduler, t5, word_tokenizer
from tests.support.builders.tiny_family import WORD_TOKENS, register


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


@register("generic", scheduler="diffusion")
def generic() -> GenericPipeline:
    tokenizer = word_tokenizer(end=True)
    tokenizer.model_max_length = WORD_TOKENS
    return GenericPipeline(
        tokenizer=tokenizer,
        text_encoder=t5(),
        transformer=GenericTransformer(),
        vae=autoencoder_kl(),
        scheduler=ddim_scheduler(),
    )
