"""Weights for a policy's forecasts, fitted to full runs of a few prompts."""

from __future__ import annotations

from typing import Any

from autotune.core.errors import InputError
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.examples import SEEDS_APART, given_rows
from autotune.evaluation.generation import picture_maker
from autotune.evaluation.inputs import seed_rows
from autotune.options.given import AnyInputs, Prompts
from autotune.pipelines.bars import without_bars
from autotune.pipelines.families import check_tested, family_of
from autotune.policy import Policy
from autotune.search.fitted_forecasts import fitted_policy
from autotune.search.least_squares import RIDGE

# Full runs of pipelines that take nothing but a seed.
_SEED_ROWS = 8


def fit_forecasts(
    pipe: Any,
    policy: Policy,
    prompts: Prompts | None = None,
    *,
    inputs: AnyInputs | None = None,
    terms: int | None = None,
    ridge: float = RIDGE,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
) -> Policy:
    """The policy with weights, fitted to full runs, in its cache rules of modes ``forecast`` and ``residual``.

    Each skipped step's output, or of a residual what is added to the input, is fitted by the last computed ones along
    runs that reuse nothing, by least squares (L2P, arXiv 2604.26365). One set of weights a step serves all units of a
    rule. This takes one full run of every prompt. Three weights a step fit full runs better than two, but may make
    worse pictures, as errors compound where steps are skipped. Unless ``terms`` says how many, both are run under,
    and the closer one to the full runs' pictures is taken: that takes twice the policy's own time besides. Eight
    prompts do; with 32, rare pictures that turn into others are fitted better.

    Memory: the last ``terms`` results of every unit of the rules for a batch, as running under the policy takes, or
    of two and three weights the last five; everything else is summed up as it comes.

    Args:
        pipe: A diffusers pipeline without a policy.
        policy: What is fitted, with an ``order`` or with weights; ``compute_steps`` stay. Rules of mode ``reuse`` stay.
        prompts: A few, none of them used to judge the policy later; pipelines that take nothing but a seed need none.
        inputs: In their place what else the pipeline takes, as :func:`autotune.tune` does.
        terms: Most weights of a step, 1 to 3; None chooses between 2 and 3 by the prompts' pictures.
        ridge: How strongly what the runs do not decide is drawn towards reusing the newest result.
        seed: Of the first prompt's noise; the others have the next ones.
        height: In pixels; None is the model's own.
        width: In pixels; None is the model's own.
        guidance_scale: None is the model's own.
        batch_size: Prompts a call of the pipeline.

    Returns:
        A policy of version 3 without records of cost and quality, which were another policy's.

    Raises:
        PolicyError: the pipeline cannot run under the policy.
        InputError: an argument cannot be used, or there is nothing to fit.

    Example:
        >>> rule = {"units": ["up_blocks.1"], "mode": "forecast", "order": 1, "compute_steps": [0, 2]}
        >>> fitted = autotune.fit_forecasts(pipe, autotune.Policy(steps=4, cache=[rule]), prompts[:2])
        >>> fitted.id
        's4-up_blocks.1i2w2'
        >>> [len(weights) for weights in fitted.cache[0].weights]  # of steps 1 and 3
        [1, 2]
    """
    given = given_rows(prompts, inputs)
    if not 0 <= seed < SEEDS_APART:
        raise InputError(f"seed is {seed}; give a number from 0 to {SEEDS_APART - 1}")
    check_tested(pipe)
    if given is None and family_of(pipe).conditioning != "none":
        raise InputError("forecasts are fitted to full runs of a few prompts; give prompts or inputs")
    taken = accepted(pipe, given)
    rows = taken.rows or seed_rows(_SEED_ROWS)
    maker = picture_maker(
        pipe, height=height, width=width, guidance_scale=guidance_scale, batch_size=batch_size, inputs=taken
    )
    with without_bars(pipe):
        return fitted_policy(maker, policy, rows, range(seed, seed + len(rows)), terms=terms, ridge=ridge)
