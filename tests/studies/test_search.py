"""Fixed recipes meet the budget, tables are read back as they were written, and the replays count right."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autotune.cost import Pricer
from autotune.evaluation.examples import Examples
from autotune.evaluation.inputs import rows_of_prompts
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.workflows.quiet import quiet_optuna
from search_spaces import SearchSpace, space_for
from search_spaces.denoiser import DenoiserSpace
from search_spaces.transformer import TransformerSpace
from studies import search_efficiency
from studies.fixed_recipes import TUNED, Standing, verdict
from studies.search import table
from studies.search.fitted_recipes import BUDCACHE, CLIMBED_ON, FITTED_STEPS, L2P, Fitter
from studies.search.grid import grid, on_top
from studies.search.recipes import CANDIDATES, TOLERANCE, evenly, methods, spread_out, tuned_steps
from studies.search.surrogate import Surrogate
from studies.search.table import Entry, setup_of
from studies.search_efficiency import SEARCHES, World, begun


@pytest.fixture(scope="module", params=DEMO_NAMES)
def model(request: pytest.FixtureRequest) -> tuple[SearchSpace, Pricer]:
    pipe, steps = demo_pipeline(request.param), demo_assets(request.param).full_steps
    return space_for(pipe, steps=steps), Pricer(pipe, full_steps=steps)


class Guessed(Surrogate):
    """Losses that depend on a plan by chance: no regression on a table."""

    def __init__(self) -> None:
        pass

    def loss(self, policy: Policy, plan: str) -> float:
        return random.Random(plan).random()


@pytest.fixture(scope="module")
def world() -> World:
    setup = setup_of("emoji-unet", pictures=8)
    return World(setup, Guessed(), cache(setup.sensitivity))


@pytest.mark.parametrize("budget", [0.25, 0.6])
def test_settings_of_every_recipe_meet_the_budget(model: tuple[SearchSpace, Pricer], budget: float) -> None:
    space, pricer = model
    found = methods(space, pricer, budget, 40)
    assert {"FasterCache's guidance", "PAB-like", "T-GATE", "PostDiff"} < set(found)
    assert ("TaylorSeer" in found) == isinstance(space, TransformerSpace)
    assert found["FasterCache's guidance"] and all(found[name] for name in found.keys() & {"TaylorSeer"})
    for policies in found.values():
        assert len(policies) <= CANDIDATES
        for policy in policies:
            assert abs(pricer.price(policy).relative / budget - 1) <= TOLERANCE


def test_timesteps_are_tuned_for_every_solver(model: tuple[SearchSpace, Pricer]) -> None:
    space, pricer = model
    assert isinstance(space, DenoiserSpace)
    policies = tuned_steps(space, 8, (-2, 0, 2))
    assert {repr(policy.scheduler) for policy in policies} == {repr(solver.choice) for solver in space.solvers}
    assert sum(policy.timesteps != "default" for policy in policies) >= 2
    assert {pricer.price(policy).flops for policy in policies} == {pricer.price(Policy(steps=8)).flops}


def test_steps_are_evenly_apart() -> None:
    assert evenly(10, 4) == (0, 2, 5, 7)
    assert evenly(6, 6) == tuple(range(6))


def test_ends_are_among_what_is_spread_out() -> None:
    policies = [Policy(steps=steps) for steps in range(1, 12)]
    assert [policy.steps for policy in spread_out(policies, 3)] == [1, 6, 11]
    assert spread_out(policies[:2], 3) == policies[:2]


def test_an_entry_is_read_back_as_it_was_written() -> None:
    entry = Entry("random", Policy(steps=7), {"skew": 1}, "plan", 0.25, 0.5)
    document = json.loads(entry.to_json())
    assert document["policy"] == Policy(steps=7).to_dict()
    assert (document["source"], document["values"], document["loss"]) == ("random", {"skew": 1}, 0.5)


def test_neighbours_take_the_place_of_a_sampler_that_repeats_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = world.setup
    known = setup.recipes[0].proposal
    entries = [
        Entry("recipe", each.policy, each.values, setup.proposer.plan(each.policy), 0.25, 0.1)
        for each in (recipe.proposal for recipe in setup.recipes)
    ]
    monkeypatch.setattr(table, "of_grid", lambda setup: iter(()))
    monkeypatch.setattr(table, "asked", lambda proposer, entries, seed: known.values)
    source, proposal = next(table.candidates(setup, entries, int(len(entries) / table.RANDOM)))
    assert source == "neighbour"
    assert setup.proposer.plan(proposal.policy) not in {entry.plan for entry in entries}


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([(0.2, (0.1, 0.05, 0.15))], "first beyond doubt"),
        ([(0.2, (0.1, -0.05, 0.25)), (0.3, (0.2, 0.1, 0.3))], "first"),
        ([(0.05, (-0.05, -0.1, 0.0))], "place 2"),
    ],
)
def test_only_clear_leads_are_beyond_doubt(
    others: list[tuple[float, tuple[float, float, float]]], expected: str
) -> None:
    found = [Standing(TUNED, "", {}, 0.25, 0.1, (0.1, 0.1, 0.1), (0.0, 0.0, 0.0))]
    found += [Standing(f"other {loss}", "", {}, 0.25, loss, (loss, loss, loss), behind) for loss, behind in others]
    assert verdict(sorted(found, key=lambda each: each.loss)) == expected


def test_evaluations_are_counted_until_the_level_is_reached() -> None:
    assert search_efficiency.needed([0.5, 0.3, 0.4, 0.1], 0.3) == 2
    assert search_efficiency.needed([0.5], 0.3) == float("inf")
    assert search_efficiency.best_after([0.5, 0.3, 0.1], 2) == 0.3


def test_searches_that_have_run_on_the_same_table_are_kept(tmp_path: Path) -> None:
    path, known = tmp_path / "results.json", {"seeds": 2, "table": "a"}
    assert begun(path, known) == {}
    path.write_text(json.dumps({**known, "losses": {"random": [[0.5], [0.25]]}}))
    assert begun(path, known) == {"random": [[0.5], [0.25]]}
    assert begun(path, {**known, "table": "b"}) == {}


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_is_replayed(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each evaluates as many policies as it is asked for, and none twice."""
    # Ours go through all that they do in turn; others soon propose what they have learned.
    count = 24 if name.startswith(search_efficiency.OURS) else 12
    monkeypatch.setattr(search_efficiency, "EVALUATIONS", count)
    monkeypatch.setattr(search_efficiency, "TRIALS", count)
    with quiet_optuna(), without_bars(world.setup.pipe):
        losses = SEARCHES[name](world, 0)
    assert len(set(losses)) == len(losses) == count


def test_a_plan_is_numbers_of_one_length(model: tuple[SearchSpace, Pricer]) -> None:
    surrogate = pytest.importorskip("studies.search.surrogate", reason="needs scikit-learn")
    space, pricer = model
    # Simple policies are drawn more than once.
    policies = {policy.key: policy for policy in (space.sample(seed) for seed in range(20))}
    rows = [surrogate.features(policy, space, pricer) for policy in policies.values()]
    assert len({len(row) for row in rows}) == 1
    assert np.isfinite(rows).all()
    assert len({tuple(row) for row in rows}) == len(policies) > 10


@pytest.mark.parametrize("budget", [0.25, 0.4, 0.6])
def test_the_grid_is_what_a_person_would_write(model: tuple[SearchSpace, Pricer], budget: float) -> None:
    space, pricer = model
    found = grid(space, pricer, budget, 40)
    assert len(found) == len({policy.key for policy in found}) > 40
    for policy in found:
        assert pricer.price(policy).relative <= budget
        assert not policy.cache and not policy.resolution and policy.timesteps == "default"
    if budget == 0.25:
        # As good a line as any, which searches once found by luck alone.
        assert "s6@DPMSolverMultistep-g2_5" in {policy.id for policy in found}


def test_recipes_go_on_top_of_a_line_and_leave_it_as_it_is(model: tuple[SearchSpace, Pricer]) -> None:
    space, _ = model
    line = {**space.recipes[0].values, "solver": 1, "guidance_start": 6, "guidance_stop": 16}
    found = dict(on_top(space, line))
    assert len(found) >= 4 and not any("guidance" in name for name in found)
    for values in found.values():
        assert [values[name] for name in ("solver", "guidance_start", "guidance_stop")] == [1, 6, 16]
        assert values != line


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_fitted_recipes_stay_within_the_budget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def latents(pipe: Any, policy: Policy, prompts: Sequence[str]) -> torch.Tensor:
        """By chance, but always the same of a policy: what is fitted to does not matter."""
        return torch.tensor([[random.Random(f"{policy.key} {prompt}").random()] for prompt in prompts])

    monkeypatch.setattr("studies.search.fitted_recipes.latents", latents)
    monkeypatch.setattr("autotune.fit_forecasts", lambda pipe, policy, prompts, batch_size: policy)
    pipe, steps = demo_pipeline(name), demo_assets(name).full_steps
    space, pricer = space_for(pipe, steps=steps), Pricer(pipe, full_steps=steps)
    prompts = [f"prompt {number}" for number in range(CLIMBED_ON)]
    fitter = Fitter(name, pipe, pricer, Examples(rows_of_prompts(prompts), tuple(range(CLIMBED_ON))))
    found = fitter.methods(space, steps // 4, 0.25)
    assert found.keys() == {BUDCACHE, L2P, FITTED_STEPS} and all(found.values())
    for policies in found.values():
        for policy in policies:
            assert 0.2 < pricer.price(policy).relative <= 0.25 * (1 + TOLERANCE)
    assert all(policy.cache for policy in (*found[BUDCACHE], *found[L2P]))
    assert all(policy.steps == steps // 4 and policy.timesteps != "default" for policy in found[FITTED_STEPS])
