"""Weights found along full runs of tiny pipelines, against outputs watched by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler
from torch import Tensor

import autotune
from autotune.core.errors import InputError, PolicyError
from autotune.evaluation.generation import picture_maker
from autotune.evaluation.inputs import Inputs, rows_of_prompts
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied
from autotune.search import fitted_forecasts
from autotune.search.fitted_forecasts import DIGITS, distance, fitted_policy
from autotune.search.least_squares import fit_forecast
from tests.support.builders import FAMILIES, PROMPTS
from tests.support.fake_search import PROMPTS as WORDS
from tests.support.fake_search import tiny_pipeline
from tests.support.watch import traces

STEPS, COMPUTE = 5, (0, 2, 3)
ROWS, SEEDS = rows_of_prompts(PROMPTS), (3, 4)


def rule(*units: str, mode: Any = "forecast", compute_steps: tuple[int, ...] = COMPUTE) -> CacheRule:
    return CacheRule(units=units, mode=mode, order=1 if mode == "forecast" else None, compute_steps=compute_steps)


def policy(*rules: CacheRule, **fields: Any) -> Policy:
    return Policy(steps=STEPS, cache=rules, **fields)


def fit(name: str, given: Policy, pipe: Any = None, *, terms: int | None = 2, **options: Any) -> Policy:
    family = FAMILIES[name]
    pipe = family.make() if pipe is None else pipe
    inputs = Inputs(ROWS, family.extra)
    maker = picture_maker(pipe, height=family.size[0], width=family.size[1], batch_size=2, inputs=inputs)
    return fitted_policy(maker, given, ROWS, SEEDS, terms=terms, **options)


def weights_of(found: Policy, number: int = 0) -> list[tuple[float, ...]]:
    weights = found.cache[number].weights
    assert weights is not None
    return list(weights)


class Outputs:
    """What modules put out in a plain run, one tensor a call, or what they add to their first argument."""

    def __init__(self, pipe: Any, denoiser: Any, names: tuple[str, ...], *, added: bool = False) -> None:
        self.by_module: dict[str, list[Tensor]] = {name: [] for name in names}
        self._modules = dict(denoiser.named_modules())
        self._added = added

    def __enter__(self) -> Outputs:
        self._handles = [
            self._modules[name].register_forward_hook(self._noting(name), with_kwargs=True) for name in self.by_module
        ]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    def _noting(self, name: str) -> Callable[..., None]:
        def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            into = (args[0] if args else kwargs["hidden_states"]) if self._added else 0
            self.by_module[name].append((output - into).clone())

        return note


def plainly(name: str, pipe: Any) -> None:
    family = FAMILIES[name]
    scale = picture_maker(pipe, height=family.size[0], width=family.size[1]).guidance_scale
    pipe(
        list(PROMPTS),
        num_inference_steps=STEPS,
        height=family.size[0],
        width=family.size[1],
        guidance_scale=scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
        **family.extra,
    )


@pytest.mark.parametrize(
    ("name", "units", "mode"),
    [
        ("sd", ("up_blocks.1",), "forecast"),
        ("pixart-alpha", ("transformer_blocks.0", "transformer_blocks.1"), "forecast"),
        ("pixart-alpha", ("transformer_blocks.1",), "residual"),
    ],
)
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_weights_are_those_of_outputs_watched_by_hand(name: str, units: tuple[str, ...], mode: str, terms: int) -> None:
    pipe = FAMILIES[name].make()
    with Outputs(pipe, getattr(pipe, FAMILIES[name].denoiser), units, added=mode == "residual") as outputs:
        plainly(name, pipe)
    # One unit that nobody reads in skipped steps is no part of the fit.
    read = units[-1:] if mode == "forecast" else units
    expected = fit_forecast([outputs.by_module[unit] for unit in read], COMPUTE, terms=terms)
    found = weights_of(fit(name, policy(rule(*units, mode=mode)), pipe, terms=terms))
    assert [len(each) for each in found] == [1, min(terms, 3)]
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=2 * 10**-DIGITS)


def test_calls_of_either_branch_count() -> None:
    """Where guidance has a call of its own, outputs of one branch are weighed for that branch."""
    pipe = FAMILIES["lumina2"].make()
    with Outputs(pipe, pipe.transformer, ("layers.1",)) as outputs:
        plainly("lumina2", pipe)
    calls = outputs.by_module["layers.1"]
    assert len(calls) == 2 * STEPS
    expected = fit_forecast([calls[::2], calls[1::2]], COMPUTE)
    found = weights_of(fit("lumina2", policy(rule("layers.1")), pipe))
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=2 * 10**-DIGITS)


def test_both_calls_of_a_step_are_fitted() -> None:
    pipe = FAMILIES["sd"].make(HeunDiscreteScheduler(beta_schedule="scaled_linear"))
    with Outputs(pipe, pipe.unet, ("up_blocks.1",)) as outputs:
        plainly("sd", pipe)
    calls = outputs.by_module["up_blocks.1"]
    assert len(calls) == 2 * STEPS - 1
    found = weights_of(fit("sd", policy(rule("up_blocks.1")), pipe))
    first = fit_forecast([calls[:6:2], calls[1:6:2]], (0, 2))
    assert found[0] == pytest.approx(first[0], abs=2 * 10**-DIGITS)


def test_where_guidance_stops_the_conditional_rows_are_weighed() -> None:
    found = fit("sd", policy(rule("up_blocks.1"), guidance=Guidance(stop_step=4)))
    assert [len(each) for each in weights_of(found)] == [1, 2]
    guided = fit("sd", policy(rule("up_blocks.1")))
    assert weights_of(found)[0] == weights_of(guided)[0] and weights_of(found)[1] != weights_of(guided)[1]


def test_after_a_change_of_resolution_only_what_came_since_is_weighed() -> None:
    found = fit("sd", policy(rule("up_blocks.1"), resolution=(ResolutionStage(scale=0.5, until_step=3),)))
    assert [len(each) for each in weights_of(found)] == [1, 1]


def test_what_is_fitted_is_a_policy_of_version_3_that_runs() -> None:
    pipe = FAMILIES["sd"].make()
    given = policy(rule("up_blocks.1"), rule("**.attn1", mode="reuse"), timesteps="trailing", budget="40%")
    found = fit("sd", given, pipe)
    assert (found.version, found.timesteps, found.budget) == (3, "trailing", None)
    assert found.cache[1] == given.cache[1]
    assert found.cache[0].order is None and found.cache[0].compute_steps == COMPUTE
    assert fit("sd", found, pipe) == found
    with applied(pipe, found):
        arguments = FAMILIES["sd"].arguments()
        del arguments["num_inference_steps"]
        assert torch.isfinite(FAMILIES["sd"].run(pipe, **arguments)).all()


@pytest.mark.parametrize("closest", [2, 3])
def test_the_number_of_weights_is_that_whose_pictures_are_closer(closest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fits full runs better."""
    pipe = FAMILIES["sd"].make()
    given = policy(rule("up_blocks.1"))
    fitted = {terms: fit("sd", given, pipe, terms=terms) for terms in (2, 3)}
    distances = iter([float(terms != closest) for terms in fitted])
    monkeypatch.setattr(fitted_forecasts, "distance", lambda *_: next(distances))
    assert fit("sd", given, pipe, terms=None) == fitted[closest]
    assert next(distances, None) is None


def test_a_choice_that_a_schedule_does_not_leave_takes_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted_forecasts, "distance", lambda *_: pytest.fail("nothing to choose between"))
    given = policy(rule("up_blocks.1", compute_steps=(0, 2)))
    assert fit("sd", given, terms=None) == fit("sd", given, terms=2)


def test_a_picture_that_becomes_another_one_does_not_decide() -> None:
    exact = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    near, mostly_nearer = exact + 4, exact + 2
    mostly_nearer[0] = 20
    assert distance(exact, exact) == 0 < distance(mostly_nearer, exact) < distance(near, exact)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (policy(rule("up_blocks.1", mode="reuse")), {}, "nothing to fit"),
        (policy(), {}, "nothing to fit"),
        (policy(rule("up_blocks.1", compute_steps=tuple(range(STEPS)))), {}, "nothing to fit"),
        (policy(rule("up_blocks.9")), {}, "no unit 'up_blocks.9'"),
        (policy(rule("up_blocks.1", mode="residual")), {}, "no residual"),
        (policy(rule("up_blocks.1")), {"terms": 4}, "terms is 4"),
        (policy(rule("up_blocks.1")), {"ridge": -1.0}, "ridge is -1"),
        (
            policy(rule("up_blocks.1"), resolution=(ResolutionStage(scale=0.5, until_step=1),)),
            {},
            "with weights they list step 1 too",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_the_first_call(
    given: Policy, options: dict[str, Any], words: str
) -> None:
    pipe = FAMILIES["sd"].make()
    before, calls = traces(pipe), []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises((InputError, ValueError), match=words):
        fit("sd", given, pipe, **options)
    handle.remove()
    assert not calls and traces(pipe) == before


def test_only_results_that_may_be_weighed_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    forget = fitted_forecasts._Recorder._forget

    def counting(self: Any, results: dict[int, Any], steps: Any, step: int) -> None:
        forget(self, results, steps, step)
        held.append(len(results))

    monkeypatch.setattr(fitted_forecasts._Recorder, "_forget", counting)
    fit("sd", policy(rule("up_blocks.1")), terms=2)
    assert max(held) == 2


def test_steps_that_no_call_makes_reuse_the_newest_result() -> None:
    """Of image-to-image, whose strength leaves them out."""
    family = FAMILIES["sd-img2img"]
    pipe = family.make()
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    image = _pillow(picture)
    given = Policy(steps=10, cache=(rule("up_blocks.1", compute_steps=(0, 5, 7)),))
    found = autotune.fit_forecasts(
        pipe,
        given,
        inputs=[{"prompt": prompt, "image": image, "strength": 0.5} for prompt in PROMPTS],
        height=32,
        width=32,
    )
    weights = weights_of(found)
    assert weights[:4] == [(1.0,)] * 4
    # 5 and 7 are there for 8 and 9, and for 6 there is 5 alone.
    assert [len(each) for each in weights[4:]] == [1, 2, 2]


def _pillow(picture: Tensor) -> Any:
    from PIL import Image

    return Image.fromarray((picture.permute(1, 2, 0) * 255).to(torch.uint8).numpy())


# The public name


def test_without_prompts_it_says_so() -> None:
    with pytest.raises(InputError, match="give prompts or inputs"):
        autotune.fit_forecasts(tiny_pipeline(), policy(rule("up_blocks.1")))


def test_under_a_policy_it_says_so() -> None:
    pipe = tiny_pipeline()
    with applied(pipe, Policy(steps=4)), pytest.raises(InputError, match="already runs under a policy"):
        autotune.fit_forecasts(pipe, policy(rule("up_blocks.1")), WORDS[:1])


def test_the_same_call_finds_the_same_weights_and_leaves_the_pipeline_as_it_was() -> None:
    pipe = tiny_pipeline()
    before = traces(pipe)
    one, other = (autotune.fit_forecasts(pipe, policy(rule("up_blocks.1")), WORDS[:3]) for _ in range(2))
    assert one == other and traces(pipe) == before
    assert autotune.fit_forecasts(pipe, policy(rule("up_blocks.1")), WORDS[:3], seed=9) != one


def test_a_policy_error_is_what_a_unit_without_results_raises() -> None:
    with pytest.raises(PolicyError):
        autotune.fit_forecasts(tiny_pipeline(), policy(rule("up_blocks.9")), WORDS[:1])
