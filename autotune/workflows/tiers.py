"""Several budgets' policies as the tiers of one file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.core.naming import FULL_TIER
from autotune.policy import PolicySet
from autotune.results.tiers import POLICIES, keep_tier_pictures

if TYPE_CHECKING:
    from torch import Tensor

    from autotune.workflows.tune import TuneResult


def export_tiers(names: Sequence[str], results: Sequence[TuneResult], model: str, report: str) -> PolicySet:
    """Write ``policies.json`` into the run's folder, and pictures of every tier for its page.

    Args:
        names: of the tiers, one for each result.
        results: of one search at several budgets.
        model: what the model is called.
        report: the name of the pages of the budgets' own searches, each in its folder.

    Returns:
        The policies as they were exported, each with its cost and its held-out scores.

    Raises:
        PolicyError: the file would exceed 8 KB a tier.
    """
    first = results[0]
    policies = PolicySet(tiers={name: result.policy for name, result in zip(names, results, strict=True)})
    policies.save(first.run_dir / POLICIES)
    pictures: dict[str, Tensor] = {FULL_TIER: first.previews[0]}
    for name, result in zip(names, results, strict=True):
        place = result.finalists.headline_runs.index(result.finalists.winner)
        pictures[name] = result.previews[place]
    reports = {
        name: (result.policy_folder / report).relative_to(result.run_dir).as_posix()
        for name, result in zip(names, results, strict=True)
    }
    keep_tier_pictures(first.run_dir, model, first.noun, first.preview_prompts, pictures, reports)
    return policies
