"""What the judges see in the pictures of :mod:`studies.proxy.pictures`.

A search's judges may use ``emoji-clip`` and what needs no network. The truth belongs to networks they never see:
EfficientNet-Lite0, trained on ImageNet by others, for the distance to the real pictures and for the error to the exact
run, and a second CLIP of another width and seed for the alignment
(``python -m studies.emoji.train_clip --seed 1 --width 128 --name judge-clip``, kept beside this file).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from autotune.models.shipped import demo_assets
from autotune.policy import Policy
from autotune.quality import Baseline, Evaluation, FeatureNetwork, Scorer, coarse, feature_network, shuffled_alignment
from autotune.quality.fidelity import feature_distances
from autotune.quality.tensors import write_tensors
from autotune.quality.wavelets import haar_errors, textures
from studies.emoji.data import load
from studies.proxy.chosen import Entry
from studies.proxy.exact import exact_run, snapped_run
from studies.proxy.pictures import FOLDER, PART, PICTURES, examples, pictures_of

JUDGE_CLIP = Path(__file__).parent / "judge-clip"
JUDGE_NETWORK = "efficientnet-lite0"


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures (N, 3, 64, 64) of one policy as the objective's network and the judges see them.

    Attributes:
        clip: (N, 128) features of ``emoji-clip``.
        network: (N, 1280) features of the judges' network.
        judge: (N, 128) image features of the judges' CLIP.
        textures: (N, 27) of wavelets' bands.
    """

    clip: Tensor
    network: Tensor
    judge: Tensor
    textures: Tensor


@dataclass(frozen=True, eq=False)
class Pair:
    """Errors (N,) of N pictures to as many others of the same prompts from the same noise.

    Attributes:
        clip: Distance of ``emoji-clip``'s features.
        network: Of the judges' network's.
        haar: Of wavelets' coefficients.
        change: (N, 27) of textures.
    """

    clip: Tensor
    network: Tensor
    haar: Tensor
    change: Tensor


class Eyes:
    """The three networks."""

    def __init__(self, name: str) -> None:
        self.clip = Scorer(demo_assets(name).scorer_dir)
        self.judge = Scorer(JUDGE_CLIP)
        self.network: FeatureNetwork = feature_network(JUDGE_NETWORK)

    def see(self, pictures: Tensor) -> dict[str, Tensor]:
        eyes = {"clip": self.clip, "network": self.network, "judge": self.judge}
        return {name: eye.image_features(pictures) for name, eye in eyes.items()}


@dataclass(frozen=True, eq=False)
class Views:
    """Everything seen of one model's policies; row i of all of them is the same prompt and seed.

    Attributes:
        prompts: The N prompts.
        policies: In the order of ``entries``; the first is the full run.
        pairs: Of each policy with its exact run, by the steps that guidance is snapped to; at 0 with the full run.
        unit: Of the full run's coarse pictures with its own.
        coarse: The full run's pictures with 16 pixels a side.
        real: Real pictures of what the prompts are drawn from.
        clip_text: (N, 128) the prompts' features by ``emoji-clip``.
        judge_text: (N, 128) by the judges' CLIP.
    """

    prompts: tuple[str, ...]
    policies: list[Seen]
    pairs: dict[int, list[Pair]]
    unit: Pair
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

    def error(self, kind: str, index: int, rows: Tensor, every: int = 1) -> float:
        """Mean error of policy ``index`` to its exact run: ``kind`` is a field of :class:`Pair`; 1 for coarse ones."""
        pair, unit = getattr(self.pairs[every][index], kind), getattr(self.unit, kind)
        return float(pair[rows].mean() / unit[rows].mean())

    def _prompts(self, rows: Tensor) -> tuple[str, ...]:
        return tuple(self.prompts[row] for row in rows.tolist())


def views(
    name: str, entries: list[Entry], folder: Path = FOLDER, count: int = PICTURES, snaps: Sequence[int] = ()
) -> Views:
    """Look at the first ``count`` pictures of all policies, each once: what was seen is kept beside them.

    ``snaps`` are those of :data:`SNAPS` whose exact runs are looked at too.
    """
    prompts = examples(name)[0][:count]
    eyes = Eyes(name)
    kept = folder / name / "features"
    kept.mkdir(parents=True, exist_ok=True)

    def seen(key: str, pictures: Callable[[], Tensor]) -> Seen:
        path = kept / f"{key}.safetensors"
        if not path.is_file():
            write_tensors(path, eyes.see(pictures()), {})
        found = load_file(path)
        return Seen(found["clip"], found["network"], found["judge"], textures(pictures()))

    def all_seen(key: str, pictures: Callable[[], Tensor]) -> Seen:
        made = functools.cache(pictures)

        def part(number: int) -> Seen:
            return seen(f"{key}-{number}", lambda: made()[number * PART : (number + 1) * PART])

        return _joined(part(number) for number in range(count // PART))

    def of(policy: Policy) -> Seen:
        return all_seen(policy.key, lambda: pictures_of(name, policy, folder, count))

    def pair(policy: Policy, other: Policy) -> Pair:
        a, b = (pictures_of(name, each, folder, count) for each in (policy, other))
        return _pair(of(policy), of(other), a, b)

    full = entries[0].policy
    pictures = pictures_of(name, full, folder, count)
    spoiled = coarse(pictures)
    coarsely = all_seen("coarse", lambda: spoiled)

    def compared_with(policy: Policy, every: int) -> Policy:
        if every > 1:
            return snapped_run(policy, full.steps, every)
        return exact_run(policy, full.steps) if every else full

    pairs: dict[int, list[Pair]] = {
        every: [
            pair(entry.policy, compared_with(entry.policy, every))
            for entry in track(entries, description=f"looking at {name}'s pictures, guidance to {every}")
        ]
        for every in (1, 0, *snaps)
    }
    return Views(
        prompts=tuple(prompts),
        policies=[of(entry.policy) for entry in entries],
        pairs=pairs,
        unit=_pair(coarsely, of(full), spoiled, pictures),
        coarse=coarsely,
        real=seen("real", lambda: real_pictures(name)),
        clip_text=eyes.clip.text_features(prompts),
        judge_text=eyes.judge.text_features(prompts),
    )


def _pair(a: Seen, b: Seen, pictures: Tensor, others: Tensor) -> Pair:
    return Pair(
        feature_distances(a.clip, b.clip),
        feature_distances(a.network, b.network),
        haar_errors(pictures, others),
        a.textures - b.textures,
    )


def _joined(parts: Iterable[Seen]) -> Seen:
    found = list(parts)
    return Seen(*(torch.cat([getattr(part, field.name) for part in found]) for field in fields(Seen)))


def real_pictures(name: str) -> Tensor:
    """Real pictures (M, 3, 64, 64) uint8 of what a shipped model's prompts are drawn from."""
    captions = set(demo_assets(name).tuning_prompts)
    images, all_captions, _ = load()
    return images[torch.tensor([caption in captions for caption in all_captions])]
