"""A study from before some knobs came goes on as if its trials had them at what does nothing."""

from __future__ import annotations

from dataclasses import replace

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autotune.search.samplers import sampler_for
from autotune.study.candidate import draw
from autotune.study.configuration import differs
from autotune.study.trials import RECIPE, enqueue_recipes
from search_spaces.earlier import PLAIN_OF_LATER
from tests.search_spaces.test_unet_space import SPACE
from tests.study.test_configuration import ONE

ENDS: dict[str, BaseDistribution] = {knob.name: IntDistribution(knob.low, knob.high) for knob in SPACE.knobs}
EARLIER: dict[str, BaseDistribution] = {name: ends for name, ends in ENDS.items() if name not in PLAIN_OF_LATER}


def study_of(knobs: dict[str, BaseDistribution]) -> optuna.Study:
    """The recipes, evaluated; those that later knobs change as they were without."""
    study = optuna.create_study()
    for number, recipe in enumerate(SPACE.recipes):
        params = {name: recipe.values[name] for name in knobs}
        given = {RECIPE: recipe.name}
        study.add_trial(create_trial(params=params, distributions=knobs, value=number / 10, user_attrs=given))
    return study


def test_samplers_learn_from_its_trials() -> None:
    plain = SPACE.recipes[0].values
    known = create_trial(
        params={name: plain[name] for name in EARLIER}, distributions=EARLIER, value=0.1, state=TrialState.COMPLETE
    )
    same = create_trial(params=dict(plain), distributions=ENDS, value=0.1)
    found = [draw(sampler_for("tpe", 3, 12), SPACE, [each] * 12, conditional=True) for each in (known, same)]
    assert found[0].values == found[1].values


def test_only_recipes_that_later_knobs_change_are_tried_again() -> None:
    study = study_of(EARLIER)
    enqueue_recipes(study, [(recipe.name, recipe.values) for recipe in SPACE.recipes])
    again = [trial.user_attrs[RECIPE] for trial in study.get_trials(states=(TrialState.WAITING,))]
    assert again == ["DeepCache, interval 3, last step computed"]


def test_it_is_bound_to_what_it_was() -> None:
    later = replace(ONE, knobs=(*ONE.knobs, "cool_down 0..3"))
    assert not differs(ONE.document(), later.document())
    assert differs(later.document(), ONE.document())
    assert differs(ONE.document(), replace(ONE, knobs=(*ONE.knobs, "cool_down 1..3")).document())
