"""What a study is bound to: all that decides the scores of its trials, and where two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from autotune.core.fingerprint import digest
from search_spaces.earlier import are_as_before

# What only decides which policies are tried, and how their scores are weighed.
_SEARCH_ONLY = {
    "budget", "max_steps", "distance", "objective", "target", "call_batch", "max_memory", "knobs", "sampler",
    "early_stopping", "judges", "statistics", "exact",
}  # fmt: skip

# How sentences speak of what has a name that is no noun, and of what there are several.
_SAID = {"held_out": "held-out inputs", "held_out_images": "held-out images"}
_PLURAL = {
    "weights", "full_steps", "max_steps", "images", "held_out_images", "prompts", "held_out", "knobs", "statistics",
}  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """All that decides what a trial of the study scores. Two runs that differ in any of it do not mix.

    ``weights``, ``prompts``, ``held_out`` and ``target`` (of the hardware profile) are digests, ``objective`` are
    the weights of distance, alignment and fidelity, ``knobs`` is one line per knob. ``call`` holds what every call of
    the pipeline is given besides, pictures by their content. ``judges`` are those of a panel with others than these
    three, each with its weight, and the ceiling; ``statistics`` are what lies beside the reference for some of them;
    ``exact`` says how pictures are compared with exact runs, where they are.
    """

    model: str
    weights: str
    budget: str
    height: int
    width: int
    guidance_scale: float | None
    full_steps: int
    max_steps: int
    images: int
    held_out_images: int
    batch_size: int
    seed: int
    prompts: str
    held_out: str
    reference: str
    scorer: str | None
    network: str | None
    distance: str
    objective: tuple[float, ...]
    target: str | None
    call_batch: int | None
    max_memory: int | None
    knobs: tuple[str, ...]
    sampler: str
    early_stopping: bool
    call: Mapping[str, Any] = field(default_factory=dict)
    judges: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    exact: str | None = None

    @property
    def pictures_digest(self) -> str:
        """A digest of all that decides what the pictures of a policy are and what judges see in them."""
        return digest({name: value for name, value in self.document().items() if name not in _SEARCH_ONLY})

    def document(self) -> dict[str, Any]:
        """As JSON gives it back, so that a stored configuration compares equal."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        # Studies from before there was any stay what they are.
        for name in ("call", "judges", "statistics", "exact"):
            if not document[name]:
                del document[name]
        return document


def differs(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether scores under two configurations do not mix.

    One has a scorer and the other none where its judgement has no weight and a network gives the features: releases
    before this one loaded it all the same.
    """
    return bool(_differing(stored, wanted))


def _differing(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names and both values of what two configurations should have in common and have not."""
    before, now = _flat(stored), _flat(wanted)
    if are_as_before(before.get("knobs", ()), now.get("knobs", ())):
        now["knobs"] = before.get("knobs")
    found = [(name, before.get(name), now.get(name)) for name in sorted({*before, *now})]
    different = [each for each in found if each[1] != each[2]]
    return [each for each in different if not (each[0] == "scorer" and None in each[1:] and _is_idle(now))]


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """With what calls are given besides by its own name."""
    return {**{name: value for name, value in document.items() if name != "call"}, **document.get("call", {})}


def _is_idle(document: Mapping[str, Any]) -> bool:
    """Whether a scorer would have nothing to say."""
    weights: Sequence[float] = document.get("objective") or (0.0, 1.0)
    return document.get("network") is not None and not weights[1]


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Where two configurations differ first, in words."""
    if stored.get("judges") != wanted.get("judges"):
        return f"its judges were {_judges(stored)}, now they are {_judges(wanted)}"
    name, before, now = _differing(stored, wanted)[0]
    was, it_is = ("were", "they are") if name in _PLURAL else ("was", "it is")
    return f"its {_SAID.get(name, name.replace('_', ' '))} {was} {before}, now {it_is} {now}"


def _judges(document: Mapping[str, Any]) -> str:
    """The panel as options name it."""
    classic = zip(("distance", "alignment", "fidelity"), document.get("objective") or (), strict=False)
    judges = document.get("judges") or [f"{name}:{weight:g}" for name, weight in classic if weight]
    texts = [judge.partition("@")[0] for judge in judges]
    return " ".join(text if text.startswith("--") else f"--judge {text}" for text in texts)
