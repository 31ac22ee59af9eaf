"""What a model's card brings to a run whose options leave it open: prompts, a scorer and a reference."""

from __future__ import annotations

from pathlib import Path

from autotune.options import JudgeOptions
from autotune.options.given import AnyReference, AnyScorer
from autotune.pipelines.card import ModelCard
from autotune.quality import load_prompts, split


def own_judges(
    card: ModelCard, options: JudgeOptions, reference: AnyReference | None
) -> tuple[AnyScorer | None, AnyReference | None]:
    """The scorer and the reference: those that are given, else the card's."""
    if reference is None and card.reference is not None:
        # Statistics are of the card's scorer's features, which no other network's compare with.
        pictures = Path(card.reference).is_dir()
        if pictures or (options.scorer is None and options.network is None):
            reference = card.reference
    return (card.scorer if options.scorer is None else options.scorer), reference


def prompts_to_tune(card: ModelCard) -> tuple[list[str], list[str] | None] | None:
    """Prompts for a search, and those that judge what it found if the card says; None without prompts.

    The latter are all prompts the model has never seen and a quarter of the others: intervals narrow with
    different prompts, and hardly with more pictures of the same one.

    Raises:
        InputError: a file cannot be read.
    """
    if card.prompts is None:
        return None
    prompts = load_prompts(card.prompts)
    if card.held_out is None:
        return prompts, None
    tuning, aside = split(prompts)
    return tuning, aside + load_prompts(card.held_out)


def prompts_to_compare(card: ModelCard) -> list[str] | None:
    """Prompts to compare policies on: those the model has never seen, else those no search tunes on.

    Raises:
        InputError: a file cannot be read.
    """
    if card.held_out is not None:
        return load_prompts(card.held_out)
    if card.prompts is None:
        return None
    prompts = load_prompts(card.prompts)
    return split(prompts)[1] or prompts
