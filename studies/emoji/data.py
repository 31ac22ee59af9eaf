"""Captioned 64x64 pictures from three openly licensed emoji sets.

``python -m studies.emoji.data`` downloads the sets with ``npm pack`` (versions and
checksums pinned below), keeps the concepts that are recognisable at 64x64, composites
them on white and writes two files: ``data.safetensors`` (the pictures) and ``data.json``
(their captions and the held-out list).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file, save_file

WORK_DIR = Path("runs/emoji")
IMAGE_SIZE = 64
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class EmojiSet:
    """One npm package of pictures and the word that names its style in captions."""

    style: str
    package: str
    sha512: str
    folder: str
    licence: str


EMOJI_SETS = (
    EmojiSet(
        "noto",
        "emoji-datasource-google@16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        "package/img/google/64",
        "Apache-2.0 (Noto Emoji, Google)",
    ),
    EmojiSet(
        "twemoji",
        "emoji-datasource-twitter@16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        "package/img/twitter/64",
        "CC-BY 4.0 (Twemoji, Twitter and contributors)",
    ),
    EmojiSet(
        "fluent",
        "@lobehub/fluent-emoji-3d@1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "package/assets",
        "MIT (Fluent Emoji, Microsoft)",
    ),
)

# People, flags, clocks and lettering differ in details that 64 pixels do not show.
CATEGORIES = {
    "Smileys & Emotion",
    "Animals & Nature",
    "Food & Drink",
    "Activities",
    "Travel & Places",
    "Objects",
}
SUBCATEGORIES_LEFT_OUT = {"time"}
SUBCATEGORIES_ADDED = {"geometric", "zodiac", "body-parts", "hand-fingers-open", "hand-fingers-closed", "hands"}

# What the denoisers settle on after a broad start: few enough and plain enough to be drawn well
# by a small model. The autoencoder and the CLIP see everything.
ICONIC = {
    *("animal-amphibian", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "animal-reptile"),
    *("plant-flower", "plant-other", "drink", "food-asian", "food-fruit", "food-prepared", "food-sweet"),
    *("food-vegetable", "heart", "face-smiling", "face-affection", "face-tongue", "face-glasses", "face-costume"),
    *("cat-face", "monkey-face", "face-negative", "face-hat", "face-unwell", "sport", "musical-instrument"),
    *("geometric", "transport-ground", "transport-air", "transport-water", "sky & weather"),
}


def download(package: str, sha512: str, folder: Path) -> Path:
    """Fetch one npm package as a tarball, once, and check it against its pinned SHA-512 (base64)."""
    name, _, version = package.rpartition("@")
    path = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", package, "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if digest != sha512:
        raise SystemExit(f"{path} has SHA-512 {digest}, expected {sha512}: delete it and run again.")
    return path


def caption_of(name: str) -> str:
    """The Unicode name as lower-case words: ``"RED APPLE"`` -> ``"red apple"``."""
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def wanted(entry: dict) -> bool:
    if entry["subcategory"] in SUBCATEGORIES_LEFT_OUT:
        return False
    return entry["category"] in CATEGORIES or entry["subcategory"] in SUBCATEGORIES_ADDED


def is_held_out(caption: str) -> bool:
    """A stable 5 % by hash, so that adding captions never moves one between the parts."""
    digest = hashlib.sha256(caption.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HELD_OUT_SHARE


def read_picture(data: bytes) -> np.ndarray:
    """Decode, composite on white, resize to (64, 64, 3) uint8."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(picture)
    if canvas.size != (IMAGE_SIZE, IMAGE_SIZE):
        canvas = canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(canvas.convert("RGB"))


def build(work_dir: Path) -> tuple[torch.Tensor, list[str], list[bool]]:
    """Pictures (N, 3, 64, 64) uint8, captions, and which of them are iconic."""
    archives = {s.style: download(s.package, s.sha512, work_dir / "npm") for s in EMOJI_SETS}
    with tarfile.open(archives["noto"]) as tar:
        table = tar.extractfile("package/emoji.json")
        assert table is not None
        entries = [entry for entry in json.load(table) if wanted(entry)]

    pictures: list[np.ndarray] = []
    captions: list[str] = []
    iconic: list[bool] = []
    for emoji_set in EMOJI_SETS:
        with tarfile.open(archives[emoji_set.style]) as tar:
            members = {m.name: m for m in tar.getmembers() if m.isfile()}
            for entry in track(entries, description=emoji_set.style):
                stem = entry["image"].removesuffix(".png")
                # Sets disagree on whether file names carry the variation selector fe0f.
                stems = dict.fromkeys((stem, stem.replace("-fe0f", ""), stem + "-fe0f"))
                names = [f"{emoji_set.folder}/{s}.{e}" for s in stems for e in ("png", "webp")]
                found = next((n for n in names if n in members), None)
                caption = f"{emoji_set.style} {caption_of(entry['name'])}"
                if found is None or caption in captions:
                    continue
                file = tar.extractfile(members[found])
                assert file is not None
                pictures.append(read_picture(file.read()))
                captions.append(caption)
                iconic.append(entry["subcategory"] in ICONIC)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return images, captions, iconic


def load(work_dir: Path = WORK_DIR) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Pictures (N, 3, 64, 64) uint8, their N captions, and a bool mask (N,) of the held-out ones."""
    if not (work_dir / "data.safetensors").exists():
        raise SystemExit(f"No data in {work_dir}: run python -m studies.emoji.data first.")
    images = load_file(work_dir / "data.safetensors")["images"]
    captions = json.loads((work_dir / "data.json").read_text())["captions"]
    return images, captions, torch.tensor([is_held_out(c) for c in captions])


def load_iconic(work_dir: Path = WORK_DIR) -> torch.Tensor:
    """A bool mask (N,) of the pictures whose concepts are iconic."""
    return torch.tensor(json.loads((work_dir / "data.json").read_text())["iconic"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR)
    work_dir: Path = parser.parse_args().work_dir
    images, captions, iconic = build(work_dir)
    save_file({"images": images}, work_dir / "data.safetensors")
    held_out = [c for c in captions if is_held_out(c)]
    document = {"captions": captions, "held_out": held_out, "iconic": iconic}
    (work_dir / "data.json").write_text(json.dumps(document, indent=0))
    print(f"{len(captions)} pictures, {sum(iconic)} iconic, {len(held_out)} captions held out, in {work_dir}")


if __name__ == "__main__":
    main()
