"""What Optuna's dashboard shows of a study besides its trials: the value's name, a note, plots, why trials failed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from autotune.report import plots
from autotune.report.facts import facts_of
from autotune.report.importance import importance_of
from autotune.report.page import FILE, plan_of, plots_of, shown_policy
from autotune.report.run import Run
from autotune.study.notes import failure_note
from autotune.study.optuna_internals import live_trial
from autotune.study.trials import FAILURE

METRIC = "loss"

KEPT = "\n\n---\n*What stands below this line is yours and is kept.*\n"
"""Ends the part of a study's note that is rewritten."""

_GIGA = 1e9
# What the dashboard gives a plot, whatever it asks for.
_HEIGHT = 440
_ID = "postdiff-{}"


def publish(run: Run, link: str | None = None) -> None:
    """Write what the dashboard shows into the study, in the place of what was written before.

    Nothing is written into a study that no search of this package made.

    Args:
        run: a run, finished or not.
        link: where the report is, seen from the dashboard; None where it is a file only.
    """
    if not run.config:
        return
    # Too heavy for everything that only reads a run.
    import plotly.graph_objects as go
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object

    if run.study.metric_names != [METRIC]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            run.study.set_metric_names([METRIC])
    before = get_note(run.study)
    yours = before.partition(KEPT)[2] if KEPT in before else before
    note = study_note(run, link) + KEPT + yours
    if note != before:
        save_note(run.study, note)
    for trial in run.study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        _note_failure(run.study, trial)
    for name, figure in figures(run).items():
        # Without Plotly's own template, which would be most of what is kept.
        drawn = go.Figure(figure | {"layout": figure["layout"] | {"template": "none"}})
        save_plotly_graph_object(run.study, drawn, graph_object_id=_ID.format(name))


def study_note(run: Run, link: str | None = None) -> str:
    """Markdown: what was found, what is searched, within which budget, and how to read it."""
    facts, config = facts_of(run), run.config
    knobs = [knob.rpartition(" ") for knob in config.get("knobs", ())]
    listed = ", ".join(f"`{name}` {between.replace('..', ' to ')}" for name, _, between in knobs)
    report = f"`{run.folder / FILE}`"
    parts = [
        f"## {facts.title}",
        " ".join(facts.lead),
        "**What is searched.** Every trial is a policy: which steps run at which size, which units take what they"
        " computed before, when guidance runs."
        + (f" Its parameters are {listed}." if listed else "")
        + " The number of steps is not among them: it is solved from the budget.",
        f"**Budget.** {_budget(run)}",
        f"**How to read it.** The value is the loss: 0 is the full run of {config.get('full_steps', 'all')} steps,"
        " lower is better. A trial's note has its 95 % interval, its grid shows what it makes, and its attribute"
        " `recipe` says which known setting it is.",
        "\n".join(
            (
                "| state | what it means |",
                "|---|---|",
                f"| Complete | scored on all {config.get('images', '')} tuning pictures;"
                " with `duplicate_of`, the score of an earlier trial that computes the same |",
                "| Pruned | stopped early: others are better on its first pictures |",
                "| Fail | it broke down, or nothing of it is within the budget; its note and `failure` say which |",
            )
        ),
        f"**Report.** [The whole story on one page]({link}), also in {report}." if link else f"**Report.** {report}",
    ]
    return "\n\n".join(parts)


def figures(run: Run) -> dict[str, plots.Figure]:
    """The frontier, the plan of the best policy and its cost by kind of unit, as far as the run has got, in colour."""
    there = plots_of(run, importance_of(run))
    found = {name: (there[key].heading, there[key].figure) for name, key in _FROM_THE_REPORT.items() if key in there}
    picture, policy = plan_of(run), shown_policy(run)
    if picture is not None and policy is not None:
        found["plan"] = (f"Plan of {policy.id}", plots.plan(picture))
    return {name: resolved(_headed(figure, heading), light()) for name, (heading, figure) in found.items()}


_FROM_THE_REPORT = {"frontier": "frontier", "cost-by-unit": "by-kind"}


def _headed(figure: plots.Figure, heading: str) -> plots.Figure:
    """The dashboard has no place for a heading but in the plot, and one height for all."""
    title = {"text": heading, "font": {"size": 16}, "x": 0, "xref": "paper", "xanchor": "left"}
    own = {"title": title, "height": _HEIGHT, "paper_bgcolor": "@page", "plot_bgcolor": "@page"}
    return figure | {"layout": figure["layout"] | own | {"margin": {"l": 12, "r": 12, "t": 48, "b": 12}}}


def resolved(figure: Any, colors: Mapping[str, str]) -> Any:
    """``figure`` with ``colors`` in the place of their names.

    Raises:
        KeyError: it names another one.
    """
    if isinstance(figure, Mapping):
        return {key: resolved(value, colors) for key, value in figure.items()}
    if isinstance(figure, list | tuple):
        return [resolved(value, colors) for value in figure]
    return colors[figure[1:]] if isinstance(figure, str) and figure.startswith("@") else figure


@cache
def light() -> Mapping[str, str]:
    """The report's colours on white. The dashboard does not tell plots whether it is light or dark."""
    css = resources.files("autotune.report").joinpath("templates/report.css").read_text("utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css.partition("@media")[0]))


def _budget(run: Run) -> str:
    record = run.search_record
    if record is None:
        return f"{run.config.get('budget')}."
    bounds = []
    if record.most_flops is not None:
        flops = f"{record.most_flops / _GIGA:.4g} of the full run's {record.full.flops / _GIGA:.4g} GFLOPs a picture"
        bounds.append(flops)
    if record.most_ms is not None:
        bounds.append(f"{record.most_ms:.4g} ms a call")
    return f"{record.budget}: at most {' and '.join(bounds)}." if bounds else f"{record.budget}."


def _note_failure(study: optuna.Study, failed: FrozenTrial) -> None:
    from optuna_dashboard import get_note, save_note

    trial = live_trial(study, failed)
    if not get_note(trial):
        save_note(trial, failure_note(failed.user_attrs.get(FAILURE)))
