"""Adapters of random weights for the tiny U-Nets: what people load beside a pipeline."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ControlNetModel

_WIDTH = 8


def load_ip_adapters(pipe: Any, count: int) -> None:
    """So many IP-Adapters of four tokens each, which read embeddings of 8 numbers."""
    unet = pipe.unet
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.5

    cross = unet.config.cross_attention_dim
    layers = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    states = []
    for _ in range(count):
        weights: dict[str, torch.Tensor] = {}
        # Keys go by the layers' places among those that attend to text, every second number.
        for place, name in enumerate(layers):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"{2 * place + 1}.{part}.weight"] = draw(hidden, cross)
        image = {
            "proj.weight": draw(4 * cross, _WIDTH),
            "proj.bias": draw(4 * cross),
            "norm.weight": torch.ones(cross),
            "norm.bias": torch.zeros(cross),
        }
        states.append({"image_proj": image, "ip_adapter": weights})
    unet._load_ip_adapter_weights(states, low_cpu_mem_usage=False)
    unet.to(unet.dtype).requires_grad_(False)


def image_embeds(adapters: int, *, guided: bool) -> list[torch.Tensor]:
    """What a call takes for so many IP-Adapters: a row for each branch, which the pipeline repeats for its pictures."""
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2 if guided else 1, 1, _WIDTH, generator=generator) for _ in range(adapters)]


def controlnet(pipe: Any) -> ControlNetModel:
    """A ControlNet of the pipeline's U-Net with connections that are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        # Every channel but the first halves the picture's sides, down to those of the latents.
        halvings = pipe.vae_scale_factor.bit_length() - 1
        model = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8,) * (halvings + 1))
        for block in (*model.controlnet_down_blocks, model.controlnet_mid_block, model.controlnet_cond_embedding):
            for parameter in block.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)
