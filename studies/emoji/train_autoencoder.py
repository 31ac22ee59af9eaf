"""Train the autoencoder: 64x64 pictures to 4x16x16 latents and back.

A plain ``AutoencoderTiny``. Besides reconstruction, half of the steps ask that decoding
*downscaled* latents gives the downscaled picture (scale equivariance, Kouzelis et al. 2025,
"EQ-VAE", section 3): latents behave like small pictures, which both the denoiser's training
and a change of resolution in the middle of denoising profit from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from studies.emoji.data import load
from studies.emoji.training import arguments, train

LATENT_CHANNELS = 4


def build() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(1, 3, 4),
        num_decoder_blocks=(4, 3, 1),
        latent_channels=LATENT_CHANNELS,
    )


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flips, swapped colour channels and one-pixel shifts: the autoencoder has no captions to contradict."""
    if torch.rand((), generator=generator) < 0.5:
        images = images.flip(-1)
    if torch.rand((), generator=generator) < 0.3:
        images = images[:, torch.randperm(3, generator=generator)]
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    return F.pad(images, (2, 2, 2, 2), value=1.0)[..., 2 + dy : 66 + dy, 2 + dx : 66 + dx]


def picture_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 on the pixels and on their differences to the neighbours, so that edges stay sharp."""
    loss = F.l1_loss(output, target)
    for dim in (-1, -2):
        loss = loss + F.l1_loss(output.diff(dim=dim), target.diff(dim=dim))
    return loss + 0.5 * F.mse_loss(output, target)


def main() -> None:
    args = arguments(__doc__, steps=1500, batch_size=32, learning_rate=2e-3).parse_args()
    torch.manual_seed(args.seed)
    images, _, held_out = load(args.work_dir)
    images = images[~held_out]

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        pick = torch.randint(len(images), (args.batch_size,), generator=generator)
        x = augment(images[pick].to(args.device).float() / 127.5 - 1, generator)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            z = module.encoder(x).float()
            if torch.rand((), generator=generator) < 0.5:
                size = int(torch.randint(8, 15, (), generator=generator))
                z_in = F.interpolate(z, size=(size, size), mode="bilinear", antialias=True)
                target = F.interpolate(x, size=(4 * size, 4 * size), mode="bilinear", antialias=True)
            else:
                z_in, target = z + 0.05 * torch.randn(z.shape, generator=generator), x
            output = module.decoder(z_in).float()
        # Unit scale and zero mean per channel, so that the pipeline needs no shift or scaling factor.
        mean, variance = z.mean((0, 2, 3)), z.var((0, 2, 3))
        return picture_loss(output, target) + 0.05 * (mean.square().mean() + (variance.log()).square().mean())

    module = train(build(), loss_of, args, name="autoencoder", ema_decay=0.995)
    module.save_pretrained(args.work_dir / "vae")


if __name__ == "__main__":
    main()
