"""Train the small image-text CLIP that scores pictures, and write it in open_clip's own format.

Two things differ from ordinary CLIP training because the model is to *judge* pictures:

- Mild changes that leave a picture as good as it was (a shift, a slightly other size or brightness, a
  trace of blur or noise) are augmentations: the score must not react to them. Nothing is mirrored,
  since captions speak of left and right.
- Spoiled pictures (coarse, jumbled or two blended into one) join the candidates each caption has to
  choose its picture from, and never are the right one: the score must react to them.

The result loads with ``open_clip.create_model("local-dir:runs/emoji/clip")``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from studies.emoji.data import IMAGE_SIZE, load
from studies.emoji.tokenizer import CONTEXT_LENGTH, train_tokenizer
from studies.emoji.training import arguments, train

EMBED_DIM = 128
MEAN = STD = 0.5
MAX_LOGIT_SCALE = 100.0
SPOILED_SHARE = 0.25
PATCH_DROPOUT = 0.5
MAX_SHIFT = 4


def configuration(vocabulary: int, width: int) -> dict[str, Any]:
    """The content of ``open_clip_config.json``; ``width`` is that of the image network."""
    return {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "patch_size": 8,
                "width": width,
                "layers": 5,
                "head_width": 32,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary,
                # Any name will do: for a local directory open_clip reads the tokenizer files beside this one.
                "hf_tokenizer_name": "emoji-clip",
                "width": 128,
                "heads": 4,
                "layers": 3,
            },
        },
        "preprocess_cfg": {
            "size": IMAGE_SIZE,
            "mode": "RGB",
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
            "fill_color": 255,
        },
    }


def build(config: dict[str, Any]) -> CLIP:
    """The network for training: it sees half of the patches (Li et al. 2023, "FLIP"), at half of the cost."""
    model_cfg = config["model_cfg"]
    return CLIP(**model_cfg | {"vision_cfg": model_cfg["vision_cfg"] | {"patch_dropout": PATCH_DROPOUT}})


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, resize, brighten, blur and add noise to pictures (N, 3, H, W) in 0..1 on white, each slightly."""
    n, device = len(images), images.device

    def rand(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((n, 1, 1, 1), generator=generator, device=device)

    def sometimes(values: Tensor, otherwise: float) -> Tensor:
        return torch.where(rand(0, 1) < 0.5, values, otherwise)

    # Whole pixels, so that the pictures that keep their size stay as sharp as they are.
    shift = torch.cat([rand(-MAX_SHIFT, MAX_SHIFT), rand(-MAX_SHIFT, MAX_SHIFT)], 1).round() * 2 / images.shape[-1]
    scale = sometimes(rand(0.9, 1.1), 1.0)
    transform = torch.cat([scale.flatten(1)[..., None] * torch.eye(2, device=device), shift.flatten(2)], 2)
    grid = F.affine_grid(transform, list(images.shape), align_corners=False)
    # Outside of the picture grid_sample reads zeros: make white the zero.
    images = 1 + F.grid_sample(images - 1, grid, align_corners=False)

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images.lerp(blurred, sometimes(rand(0, 0.5), 0.0))
    noise = torch.randn(images.shape, generator=generator, device=device)
    images = images * sometimes(rand(0.9, 1.1), 1.0) + noise * sometimes(rand(0, 0.04), 0.0)
    return images.clamp(0, 1)


def coarse(images: Tensor, generator: torch.Generator) -> Tensor:
    """Only a sixteenth of the pixels is left."""
    return F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0, mode="bilinear")


def jumbled(images: Tensor, generator: torch.Generator) -> Tensor:
    """The sixteen tiles of each picture in another order."""
    n, channels, size, _ = images.shape
    tile = size // 4
    order = torch.randperm(16, generator=generator, device=images.device)
    tiles = F.unfold(images, tile, stride=tile)[..., order]
    return F.fold(tiles, (size, size), tile, stride=tile)


def blended(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture shining through its neighbour."""
    return images.lerp(images.roll(1, 0), 0.5)


WAYS_TO_SPOIL: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (coarse, jumbled, blended)


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """The pictures (N, 3, H, W), an equal part of them ruined in each way."""
    parts = images.chunk(len(WAYS_TO_SPOIL))
    return torch.cat([way(part, generator) for way, part in zip(WAYS_TO_SPOIL, parts, strict=False)])


def contrastive_loss(image: Tensor, spoiled: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions (Radford et al. 2021, figure 3); captions also choose among the spoiled pictures.

    Args:
        image, text: (N, D), matching row by row, normalised.
        spoiled: (M, D), matching none, normalised.
        scale: The inverse temperature, a scalar.
    """
    right = torch.arange(len(image), device=image.device)
    choosing_text = F.cross_entropy(scale * image @ text.T, right)
    choosing_image = F.cross_entropy(scale * text @ torch.cat([image, spoiled]).T, right)
    return (choosing_text + choosing_image) / 2


def write(model: nn.Module, config: dict[str, Any], tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Weights in fp16, configuration and tokenizer, as ``local-dir:`` expects them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.half().cpu().contiguous() for name, value in model.state_dict().items()}
    path = folder / "open_clip_model.safetensors"
    save_file(weights, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


@torch.no_grad()
def report(folder: Path, images: Tensor, captions: list[str], held_out: Tensor) -> None:
    """Load what was written as a stranger would and print how well it matches pictures and captions."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")

    def features(pictures: Tensor) -> Tensor:
        return torch.cat([model.encode_image((x - MEAN) / STD, normalize=True) for x in pictures.split(256)])

    pictures = images.float() / 255
    image, text = features(pictures), model.encode_text(tokenize(captions), normalize=True)
    for name, part in (("training", ~held_out), ("held-out", held_out)):
        cosine = image[part] @ text[part].T
        n = len(cosine)
        top1 = float((cosine.argmax(1) == torch.arange(n)).float().mean())
        matched = float(cosine.diagonal().mean())
        shuffled = float(cosine.sum() - cosine.diagonal().sum()) / (n * (n - 1))
        print(f"{name}: top-1 image to text {top1:.1%} of {n}; cosine matched {matched:.3f}, shuffled {shuffled:.3f}")
    among_all = (image[held_out] @ text.T).argmax(1) == held_out.nonzero()[:, 0]
    print(f"held-out among all {len(captions)} captions: top-1 {float(among_all.float().mean()):.1%}")
    generator = torch.Generator().manual_seed(0)
    for way in (augment, *WAYS_TO_SPOIL):
        changed = features(way(pictures[held_out], generator))
        print(f"held-out, after {way.__name__}: cosine {float((changed * text[held_out]).sum(1).mean()):.3f}")


def parse_arguments() -> argparse.Namespace:
    """The shared options and this script's own."""
    parser = arguments(__doc__, steps=500, batch_size=256, learning_rate=1.5e-3)
    parser.add_argument("--width", type=int, default=160, help="of the image network, a multiple of 32")
    parser.add_argument("--name", default="clip", help="folder and checkpoint in the work directory")
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="autocast to bfloat16; processors without instructions for it are faster without",
    )
    return parser.parse_args()


def main() -> None:
    """Train, write, report."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    images, captions, held_out = load(args.work_dir)
    training_captions = [c for c, h in zip(captions, held_out.tolist(), strict=True) if not h]
    tokenizer = train_tokenizer(training_captions)
    config = configuration(len(tokenizer), args.width)
    folder: Path = args.work_dir / args.name

    pictures = images[~held_out].to(args.device)
    tokens = tokenizer(
        training_captions, padding="max_length", truncation=True, max_length=CONTEXT_LENGTH, return_tensors="pt"
    ).input_ids.to(args.device)

    def loss_of(module: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        # Without replacement: a caption twice in a batch would be its own wrong answer.
        pick = torch.randperm(len(pictures), generator=generator, device=args.device)[: args.batch_size]
        x = pictures[pick].float() / 255
        spoiled = spoil(x[: int(SPOILED_SHARE * len(x))], generator)
        x = augment(torch.cat([x, spoiled]), generator)
        # open_clip draws the dropped patches from the global generator: tie it to this step's.
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device=args.device)))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=args.bf16):
            image = module.encode_image((x - MEAN) / STD)  # type: ignore[operator]
            text = module.encode_text(tokens[pick])  # type: ignore[operator]
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        scale = module.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)  # type: ignore[operator]
        return contrastive_loss(image[: len(pick)], image[len(pick) :], text, scale)

    average = train(build(config), loss_of, args, name=args.name, ema_decay=0.99, weight_decay=0.1, save_every=100)
    write(average, config, tokenizer, folder)
    report(folder, images, captions, held_out)


if __name__ == "__main__":
    main()
