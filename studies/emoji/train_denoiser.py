"""Train a denoiser on the autoencoder's latents: the U-Net together with its text encoder, or the
Transformer (``--arch dit``) on the autoencoder, tokenizer and text encoder that ``emoji-unet`` ships.

v-prediction with min-SNR weighting (Hang et al. 2023, gamma 5), captions dropped one time in
ten for classifier-free guidance. One step in five sees the latents at a smaller size, as
SDXL's training sees several sizes, so that a change of resolution means something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from studies.emoji.data import load, load_iconic
from studies.emoji.tokenizer import CONTEXT_LENGTH, train_tokenizer
from studies.emoji.train_autoencoder import LATENT_CHANNELS
from studies.emoji.training import arguments, train

LATENT_SIZE = 16
SMALLER_SIZES = (8, 12)
TEXT_WIDTH = 128
MIN_SNR_GAMMA = 5.0
CAPTION_DROPOUT = 0.1
BROAD_STEPS = 3000


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.02,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,  # StableDiffusionPipeline insists; trailing spacing does not read it
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_unet() -> UNet2DConditionModel:
    """Three levels, 0.39 GFLOPs (two per multiply-add) for one forward at 16x16."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 80, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(3, 5, 5),
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def build_dit() -> PixArtTransformer2DModel:
    """Eight PixArt blocks of width 192 over 8x8 patches, 5.1 million parameters."""
    heads, head_width = 6, 32
    dit = PixArtTransformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=8,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        cross_attention_dim=heads * head_width,
        caption_channels=TEXT_WIDTH,
        use_additional_conditions=False,
    )
    # The initialisation of the PixArt authors, which diffusers leaves out: it only loads their weights.
    for layer in dit.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    for name, weight in dit.named_parameters():
        if name.startswith(("adaln_single", "caption_projection")) and name.endswith("weight"):
            nn.init.normal_(weight, std=0.02)
        elif name.endswith("attn2.to_out.0.weight") or name == "proj_out.weight":
            nn.init.zeros_(weight)
    return dit


ARCHITECTURES = {"unet": build_unet, "dit": build_dit}
SHARED = Path("autotune/models/emoji-unet")


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=TEXT_WIDTH,
    )
    return CLIPTextModel(config)


class TextToLatents(nn.Module):
    """Text encoder and denoiser, called as the stock pipeline of the denoiser calls them."""

    def __init__(self, text_encoder: CLIPTextModel, denoiser: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.denoiser = denoiser

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        text = self.text_encoder(tokens).last_hidden_state
        extra = {}
        if isinstance(self.denoiser, PixArtTransformer2DModel):
            extra = {
                "encoder_attention_mask": text_mask(tokens, self.text_encoder.config.eos_token_id),
                "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            }
        output: Tensor = self.denoiser(latents, timestep=timesteps, encoder_hidden_states=text, **extra).sample
        return output


def text_mask(tokens: Tensor, end: int) -> Tensor:
    """1 up to and including the first end token, 0 on the padding after it, as the tokenizer says to PixArt."""
    ends = (tokens == end).long()
    return (ends.cumsum(1) - ends == 0).long()


def untrained(arch: str, tokenizer: CLIPTokenizer) -> TextToLatents:
    """What training starts from; the Transformer's text encoder is the shipped one and stays as it is."""
    if arch == "unet":
        return TextToLatents(build_text_encoder(tokenizer), ARCHITECTURES[arch]())
    text_encoder = CLIPTextModel.from_pretrained(SHARED / "text_encoder", dtype=torch.float32).requires_grad_(False)
    return TextToLatents(text_encoder, ARCHITECTURES[arch]())


def shared_parts(arch: str, work_dir: Path) -> tuple[AutoencoderTiny, CLIPTokenizer]:
    """The autoencoder and the tokenizer to train on."""
    if arch == "unet":
        _, captions, held_out = load(work_dir)
        tokenizer = train_tokenizer(c for c, h in zip(captions, held_out.tolist(), strict=True) if not h)
        return AutoencoderTiny.from_pretrained(work_dir / "vae", low_cpu_mem_usage=False), tokenizer
    vae = AutoencoderTiny.from_pretrained(SHARED / "vae", low_cpu_mem_usage=False).float()
    return vae, CLIPTokenizer.from_pretrained(SHARED / "tokenizer")


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    tokens: Tensor = tokenizer(
        captions, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
    ).input_ids
    return tokens


@torch.no_grad()
def encode_all(vae: AutoencoderTiny, images: Tensor, batch_size: int = 64) -> Tensor:
    parts = [vae.encode(part.float() / 127.5 - 1).latents for part in images.split(batch_size)]
    return torch.cat(parts)


def main() -> None:
    parser = arguments(__doc__, steps=11000, batch_size=64, learning_rate=1e-3)
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="unet")
    parser.add_argument(
        "--broad-steps", type=int, default=BROAD_STEPS, help="steps on all captions before the iconic ones"
    )
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="autocast to bfloat16; processors without instructions for it are faster without",
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images, captions, held_out = load(args.work_dir)
    vae, tokenizer = shared_parts(args.arch, args.work_dir)
    latents = encode_all(vae, images[~held_out]).to(args.device)
    tokens = tokenize(tokenizer, captions)[~held_out].to(args.device)
    everything = torch.arange(len(latents), device=args.device)
    iconic = load_iconic(args.work_dir)[~held_out].to(args.device).nonzero()[:, 0]
    no_caption = tokenize(tokenizer, [""]).to(args.device)
    noise_schedule = scheduler()
    alphas = noise_schedule.alphas_cumprod.to(args.device)
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=MIN_SNR_GAMMA) / (snr + 1)

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        def rand(shape: tuple[int, ...]) -> Tensor:
            return torch.rand(shape, generator=generator, device=args.device)

        n = args.batch_size
        pool = everything if step < args.broad_steps else iconic
        pick = pool[(rand((n,)) * len(pool)).long()]
        x, text = latents[pick], tokens[pick]
        text = torch.where(rand((n, 1)) < CAPTION_DROPOUT, no_caption, text)
        u = float(rand(()))
        if u < 0.2:
            size = SMALLER_SIZES[int(u < 0.1)]
            x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
        # Stratified timesteps: the same distribution with less variance between batches.
        t = ((torch.arange(n, device=args.device) + rand((n,))) / n * 1000).long().clamp(max=999)
        noise = torch.randn(x.shape, generator=generator, device=args.device)
        noisy = noise_schedule.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
        target = noise_schedule.get_velocity(x, noise, t)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=args.bf16):
            output = module(noisy, t, text)
        error = (output.float() - target).square().mean((1, 2, 3))
        return (error * weights[t]).mean() / weights.mean()

    module = untrained(args.arch, tokenizer)
    average = train(
        module, loss_of, args, name=f"denoiser-{args.arch}", ema_decay=0.9993, weight_decay=0.01, save_every=250
    )
    folder = args.work_dir / args.arch
    assert isinstance(average, TextToLatents)
    average.denoiser.save_pretrained(folder / "denoiser")  # type: ignore[operator]
    average.text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")


if __name__ == "__main__":
    main()
