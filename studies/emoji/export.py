"""Assemble what was trained into the package: pipeline, CLIP, captions, reference, model cards, grid.

``python -m studies.emoji.export`` writes ``autotune/models/``; ``--checkpoint`` takes the moving
average of a training run still under way, to develop against.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import textwrap
from pathlib import Path
from typing import Any

import torch
from diffusers import PixArtAlphaPipeline, StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from transformers import CLIPTextModel

from autotune.evaluation.pictures import generate
from autotune.quality import Scorer, fit
from autotune.quality.alignment import prompt_alignment
from autotune.quality.panel import DISTANCE_TEXTURES
from autotune.quality.wavelets import textures
from autotune.runtime import describe_model
from studies.emoji.data import EMOJI_SETS, WORK_DIR, load, load_iconic
from studies.emoji.tokenizer import CONTEXT_LENGTH
from studies.emoji.train_denoiser import ARCHITECTURES, scheduler, shared_parts, untrained

MODELS = Path("autotune/models")
FULL_STEPS = 20
GUIDANCE_SCALE = 2.5
# What calls of the stock pipeline need besides: PixArt's defaults are those of its published models.
CALLS: dict[str, dict[str, Any]] = {
    "unet": {},
    "dit": {"use_resolution_binning": False, "max_sequence_length": CONTEXT_LENGTH, "clean_caption": False},
}
# What belongs to both, see autotune/pipelines/card.py.
BELONGINGS = {
    "scorer": "postdiff:models/emoji-clip",
    "reference": "postdiff:models/emoji-pictures/pictures.safetensors",
    "prompts": "postdiff:models/emoji-captions/training.txt",
    "held_out": "postdiff:models/emoji-captions/held-out.txt",
}
GRID = 8
BROAD = {"unet": 3000, "dit": 1000}
RECIPES = {
    "unet": "`python -m studies.emoji.data`, `.train_autoencoder` (1500 steps, batch 32), `.train_clip`,"
    " `.train_denoiser` ({step} steps, batch 64, bf16), `.export`.",
    "dit": "Eight PixArt blocks of width 192 on the autoencoder, tokenizer and text encoder of `emoji-unet`, which"
    " stay as they are: `python -m studies.emoji.data`, `.train_denoiser --arch dit --steps {step} --batch-size 32"
    " --no-bf16 --broad-steps 1000`, `.export --arch dit`.",
}
_CELL, _CAPTION = 128, 30


def assemble(work_dir: Path, arch: str, from_checkpoint: bool) -> Any:
    """The trained parts as a stock pipeline."""
    folder = work_dir / arch
    vae, tokenizer = shared_parts(arch, work_dir)
    if from_checkpoint:
        module = untrained(arch, tokenizer)
        state = torch.load(work_dir / f"denoiser-{arch}.pt", map_location="cpu", weights_only=True)
        module.load_state_dict(state["average"])
        text_encoder, denoiser = module.text_encoder, module.denoiser
    else:
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        denoiser = type(ARCHITECTURES[arch]()).from_pretrained(folder / "denoiser", low_cpu_mem_usage=False)
    parts = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler()}
    if arch == "dit":
        return PixArtAlphaPipeline(transformer=denoiser.eval(), **parts)
    no_checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(unet=denoiser.eval(), **parts, **no_checker)


def write_pipeline(pipe: Any, folder: Path, call: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(folder)
    pipe.to(torch.float32)
    # AutoencoderTiny writes this key and warns about it when reading it back.
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    config.pop("block_out_channels", None)
    path.write_text(json.dumps(config, indent=2) + "\n")
    model = describe_model(pipe, FULL_STEPS).model_dump()
    settings: dict[str, Any] = {"full_steps": FULL_STEPS, "guidance_scale": GUIDANCE_SCALE}
    settings |= ({"call": call} if call else {}) | BELONGINGS | {"model": model}
    (folder / "postdiff.json").write_text(json.dumps(settings, indent=2) + "\n")


def write_scorer(work_dir: Path, folder: Path, images: Tensor) -> Scorer:
    """The CLIP, and the Gaussians of its features of the real pictures and of their textures."""
    shutil.copytree(work_dir / "clip", folder, dirs_exist_ok=True)  # beside its card, which is written by hand
    scorer = Scorer(str(folder))
    (folder / "reference").mkdir(exist_ok=True)
    fit(scorer.image_features(images)).save(folder / "reference" / "pictures.safetensors")
    beside = folder.with_name("emoji-pictures")
    beside.mkdir(exist_ok=True)
    # The scorer's own copy stays where it was, for earlier runs know the scorer by all that is in its folder.
    shutil.copy(folder / "reference" / "pictures.safetensors", beside)
    fit(textures(images)).save(beside / f"pictures-{DISTANCE_TEXTURES}.safetensors")
    return scorer


def grid(images: Tensor, captions: list[str], columns: int) -> Image.Image:
    """Pictures (N, 3, H, W) uint8 in rows of ``columns``, each above its caption."""
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * _CELL, rows * (_CELL + _CAPTION)), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = index % columns * _CELL, index // columns * (_CELL + _CAPTION)
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        canvas.paste(picture.resize((_CELL - 8, _CELL - 8), Image.Resampling.LANCZOS), (x + 4, y + 4))
        lines = "\n".join(textwrap.wrap(caption, 22)[:2])
        draw.multiline_text((x + _CELL // 2, y + _CELL - 3), lines, "black", font, "ma", spacing=1, align="center")
    return canvas


def size_in_words(pipe: Any) -> str:
    """Parameters of each part, and what they take in half precision."""
    denoiser = ("U-Net", pipe.unet) if hasattr(pipe, "unet") else ("Transformer", pipe.transformer)
    parts = (denoiser, ("text encoder", pipe.text_encoder), ("autoencoder", pipe.vae))
    counts = [(name, sum(parameter.numel() for parameter in module.parameters())) for name, module in parts]
    listed = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in counts)
    total = sum(count for _, count in counts)
    return f"Millions of parameters: {listed}; {2 * total / 1e6:.1f} MB in half precision, as it is stored."


def card(work_dir: Path, arch: str, size: str, figures: str) -> str:
    """The model card."""
    state = torch.load(work_dir / f"denoiser-{arch}.pt", map_location="cpu", weights_only=True)
    denoiser_losses = state["losses"]
    sets = "\n".join(f"- `{s.style}`: npm package `{s.package}`, {s.licence}" for s in EMOJI_SETS)
    table = "\n".join(
        f"| {int(step)} | {loss:.4f} |" for step, loss in denoiser_losses[9 :: max(1, len(denoiser_losses) // 12)]
    )
    return f"""---
license: other
library_name: diffusers
pipeline_tag: text-to-image
---
# emoji-{arch}

A small text-to-image latent diffusion model, 64x64 pictures, made so that PostDiff has something
real to tune offline. Captions are a style (`noto`, `twemoji`, `fluent`) and a name: `fluent red apple`.

![64 captions, {FULL_STEPS} steps](grid.png)

## Data and licences
{sets}

Flags, people, clocks and lettering are left out; after {BROAD[arch]} steps on everything the denoiser
settles on the iconic concepts (animals, plants, food, drink, faces, hearts, vehicles, sport, weather,
shapes). Captions are the style and the lower-cased Unicode name. 5 % of them (by hash) were kept out
of training: `../emoji-captions/held-out.txt`. The pictures themselves are not redistributed here.
Attribution for Twemoji: copyright Twitter, Inc. and other contributors, graphics under CC-BY 4.0
(https://creativecommons.org/licenses/by/4.0/).

## Recipe
{RECIPES[arch].format(step=state["step"])}
v-prediction, min-SNR weighting (gamma 5), 10 % captions dropped, 20 % of the steps at a smaller latent size,
AdamW 1e-3 with warm-up and a linear decay over the last quarter, EMA 0.9993, seed 0, on CPU cores.

## Size
{size}

## Intended use
Trying, testing and teaching the tuning of diffusion pipelines where there is neither GPU nor network.

## Figures
{figures}

Loss of the denoiser (weighted, averaged over 100 steps):

| step | loss |
|---|---|
{table}

## Limits
It knows the words of emoji names and nothing else. It memorises its training pictures, on purpose:
its use is to make the cost of a cheaper run visible, not to invent.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR)
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="unet")
    parser.add_argument("--checkpoint", action="store_true", help="take the training run's last checkpoint")
    args = parser.parse_args()

    images, captions, held_out = load(args.work_dir)
    iconic = load_iconic(args.work_dir)
    images, held_out = images[iconic], held_out[iconic]
    captions = [c for c, i in zip(captions, iconic.tolist(), strict=True) if i]
    pipe = assemble(args.work_dir, args.arch, args.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    folder = MODELS / f"emoji-{args.arch}"
    write_pipeline(pipe, folder, CALLS[args.arch])
    pipe.register_to_config(_name_or_path=str(folder))  # where its settings are
    # The scorer belongs to the autoencoder's and the U-Net's training run; the Transformer is measured with it.
    clip = MODELS / "emoji-clip"
    scorer = write_scorer(args.work_dir, clip, images) if args.arch == "unet" else Scorer(str(clip))
    sides = {
        name: [c for c, h in zip(captions, held_out.tolist(), strict=True) if h is wanted]
        for name, wanted in (("training", False), ("held-out", True))
    }
    (MODELS / "emoji-captions").mkdir(exist_ok=True)
    for name, lines in sides.items():
        (MODELS / "emoji-captions" / f"{name}.txt").write_text("\n".join(lines) + "\n")

    def cosines(prompts: list[str], seed: int) -> tuple[Tensor, float, float]:
        pictures = generate(
            pipe, prompts, range(seed, seed + len(prompts)), guidance_scale=GUIDANCE_SCALE, steps=FULL_STEPS
        )
        image, text = scorer.image_features(pictures), scorer.text_features(prompts)
        shuffled = text.roll(1, 0)
        return pictures, float(prompt_alignment(image, text).mean()), float(prompt_alignment(image, shuffled).mean())

    chosen = random.Random(0).sample(sides["training"], GRID * GRID // 2)
    chosen += random.Random(1).sample(sides["held-out"], GRID * GRID // 2)
    pictures, _, _ = cosines(chosen, 0)
    grid(pictures, chosen, GRID).save(folder / "grid.png", optimize=True)
    _, held_matched, held_shuffled = cosines(sides["held-out"], 1000)
    _, train_matched, train_shuffled = cosines(random.Random(2).sample(sides["training"], 160), 2000)
    figures = f"""| captions | image-text cosine | with captions shuffled |
|---|---|---|
| held out ({len(sides["held-out"])}) | {held_matched:.3f} | {held_shuffled:.3f} |
| training (160 drawn) | {train_matched:.3f} | {train_shuffled:.3f} |

Full run, {FULL_STEPS} DDIM steps, guidance scale {GUIDANCE_SCALE}, scored by `../emoji-clip`. In the grid the first
four rows are training captions, the last four were held out."""
    (folder / "README.md").write_text(card(args.work_dir, args.arch, size_in_words(pipe), figures))
    print(figures)
    for path in MODELS.rglob("*"):
        # Some writers keep weights from other users; installed, everyone reads them.
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(f.stat().st_size for f in MODELS.rglob("*") if f.is_file())
    print(f"{size / 1e6:.1f} MB in {MODELS}; grid in {folder / 'grid.png'}")


if __name__ == "__main__":
    main()
