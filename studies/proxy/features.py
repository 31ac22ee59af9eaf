"""What the judges see in the pictures of :mod:`studies.proxy.pictures`.

The objective may use ``emoji-clip`` alone. The truth belongs to networks it never sees: EfficientNet-Lite0, trained on
ImageNet by others, for the distance to the real pictures, and a second CLIP of another width and seed for the
alignment (``python -m studies.emoji.train_clip --seed 1 --width 128 --name judge-clip``, kept beside this file).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from autotune.models.shipped import demo_assets
from autotune.quality import Baseline, Evaluation, FeatureNetwork, Scorer, coarse, feature_network, shuffled_alignment
from autotune.quality.tensors import write_tensors
from studies.emoji.data import load
from studies.proxy.pictures import FOLDER, Entry, examples, pictures_of

JUDGE_CLIP = Path(__file__).parent / "judge-clip"
JUDGE_NETWORK = "efficientnet-lite0"


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures (N, 3, 64, 64) of one policy as the objective's network and the judges see them.

    Attributes:
        clip: (N, 128) features of ``emoji-clip``.
        network: (N, 1280) features of the judges' network.
        judge: (N, 128) image features of the judges' CLIP.
    """

    clip: Tensor
    network: Tensor
    judge: Tensor


class Eyes:
    """The three networks."""

    def __init__(self, name: str) -> None:
        self.clip = Scorer(demo_assets(name).scorer_dir)
        self.judge = Scorer(JUDGE_CLIP)
        self.network: FeatureNetwork = feature_network(JUDGE_NETWORK)

    def see(self, pictures: Tensor) -> Seen:
        return Seen(*(eye.image_features(pictures) for eye in (self.clip, self.network, self.judge)))


@dataclass(frozen=True, eq=False)
class Views:
    """Everything seen of one model's policies; row i of all of them is the same prompt and seed.

    Attributes:
        prompts: The N prompts.
        policies: In the order of ``entries``; the first is the full run.
        coarse: The full run's pictures with 16 pixels a side.
        real: Real pictures of what the prompts are drawn from.
        clip_text: (N, 128) the prompts' features by ``emoji-clip``.
        judge_text: (N, 128) by the judges' CLIP.
    """

    prompts: tuple[str, ...]
    policies: list[Seen]
    coarse: Seen
    real: Seen
    clip_text: Tensor
    judge_text: Tensor

    def proxy(self, index: int, rows: Tensor) -> Evaluation:
        """What the objective may know of policy ``index``: ``emoji-clip``'s view of some rows."""
        return Evaluation.of(self.policies[index].clip[rows], self.clip_text[rows])

    def truth(self, index: int, rows: Tensor) -> Evaluation:
        """The judges' view."""
        alignment = Evaluation.of(self.policies[index].judge[rows], self.judge_text[rows]).alignment
        return Evaluation(self.policies[index].network[rows], alignment)

    def proxy_baseline(self, rows: Tensor) -> Baseline:
        chance = shuffled_alignment(self.policies[0].clip[rows], self.clip_text[rows])
        return Baseline(self.proxy(0, rows), self.coarse.clip[rows], chance, self._prompts(rows))

    def truth_baseline(self, rows: Tensor) -> Baseline:
        chance = shuffled_alignment(self.policies[0].judge[rows], self.judge_text[rows])
        return Baseline(self.truth(0, rows), self.coarse.network[rows], chance, self._prompts(rows))

    def _prompts(self, rows: Tensor) -> tuple[str, ...]:
        return tuple(self.prompts[row] for row in rows.tolist())


def views(name: str, entries: list[Entry], folder: Path = FOLDER) -> Views:
    """Look at all pictures, each once: what was seen is kept beside them."""
    prompts, _ = examples(name)
    eyes = Eyes(name)
    kept = folder / name / "features"
    kept.mkdir(parents=True, exist_ok=True)

    def seen(key: str, pictures: Tensor | None = None) -> Seen:
        path = kept / f"{key}.safetensors"
        if not path.is_file():
            assert pictures is not None
            write_tensors(path, vars(eyes.see(pictures)), {})
        return Seen(**load_file(path))

    policies = []
    for entry in track(entries, description=f"looking at {name}'s pictures"):
        key = entry.policy.key
        missing = not (kept / f"{key}.safetensors").is_file()
        policies.append(seen(key, pictures_of(name, entry.policy, folder) if missing else None))
    full = pictures_of(name, entries[0].policy, folder)
    return Views(
        prompts=tuple(prompts),
        policies=policies,
        coarse=seen("coarse", coarse(full)),
        real=seen("real", real_pictures(name)),
        clip_text=eyes.clip.text_features(prompts),
        judge_text=eyes.judge.text_features(prompts),
    )


def real_pictures(name: str) -> Tensor:
    """Real pictures (M, 3, 64, 64) uint8 of what a shipped model's prompts are drawn from."""
    captions = set(demo_assets(name).tuning_prompts)
    images, all_captions, _ = load()
    return images[torch.tensor([caption in captions for caption in all_captions])]
