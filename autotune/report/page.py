"""``report.html``: one file with everything in it, from a run's folder and study."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import autotune
from autotune.core.naming import singular
from autotune.core.records import write_atomically
from autotune.policy import Policy
from autotune.report import pictures, plots
from autotune.report.facts import facts_of, lines_of, percent, subject
from autotune.report.importance import importance_of
from autotune.report.plan_picture import PlanPicture, draw
from autotune.report.plan_svg import lay_out
from autotune.report.run import Run
from autotune.report.snippet import snippet
from autotune.report.tradeoff import headings, rows_of
from autotune.results.tradeoff import Tradeoff

FILE = "report.html"

# Rows of the table of candidates.
_LISTED = 20


@dataclass(frozen=True)
class Plot:
    """A figure with its heading and what to read off it."""

    id: str
    heading: str
    caption: str
    figure: plots.Figure


def write_report(run: Run, path: Path, *, reload_seconds: int | None = None) -> None:
    """Write the page, whole or not at all.

    Args:
        run: the run.
        path: the file.
        reload_seconds: have the page reload itself while the search runs.

    Raises:
        InputError: a picture of the run is damaged.
    """
    write_atomically(path, render(run, reload_seconds=reload_seconds))


def render(run: Run, *, reload_seconds: int | None = None) -> str:
    """The page as HTML."""
    view = view_of(run) | {"reload_seconds": None if run.finished else reload_seconds}
    return str(template("report.html").render(view))


def view_of(run: Run) -> dict[str, Any]:
    """What the template shows."""
    importance = importance_of(run)
    shown = shown_policy(run)
    picture = plan_of(run)
    found = sorted(run.evaluated, key=lambda each: (each.loss, each.number))
    return {
        "facts": facts_of(run),
        "subject": subject(run),
        "noun": run.noun,
        "one": singular(run.noun),
        "aligned": run.aligned,
        "erring": run.erring,
        "lines": lines_of(run),
        "last_round": run.last_round,
        "sections": pictures.held_out(run) or pictures.so_far(run),
        "drawing": lay_out(picture) if picture else None,
        "drawn": shown.id if shown else None,
        "plots": plots_of(run, importance),
        "evaluated": len(run.evaluated),
        "listed": found[:_LISTED],
        "percent": percent,
        "snippet": snippet(run),
        "provenance": provenance(run),
        **tradeoff_context(run.tradeoff),
        **made(),
    }


def tradeoff_context(tradeoff: Tradeoff | None) -> dict[str, Any]:
    """What the template shows of fewer steps against cheaper ones."""
    if tradeoff is None:
        return {"tradeoff": None, "tradeoff_plots": []}
    return {
        "tradeoff": tradeoff,
        "tradeoff_headings": headings(),
        "tradeoff_rows": rows_of(tradeoff),
        "tradeoff_plots": [
            Plot(
                "losses",
                "The best of each arm",
                f"Loss on held-out {tradeoff.noun} of the best policy of each arm within each budget; bars are 95 %"
                " intervals.",
                plots.losses_by_arm(tradeoff),
            ),
            Plot(
                "differences",
                "The arms against each other",
                f"Differences of these losses, paired by {singular(tradeoff.noun)}, which is sharper than two intervals"
                " side by side"
                + (
                    ": what lies below zero with its whole bar is better beyond doubt."
                    if tradeoff.enough
                    else f"; {tradeoff.held_out_prompts} {tradeoff.noun} are too few to tell them apart."
                ),
                plots.differences_by_arm(tradeoff),
            ),
        ],
    }


def render_tradeoff(tradeoff: Tradeoff) -> str:
    """A page of a tradeoff study alone, as HTML."""
    return str(template("tradeoff_page.html").render(tradeoff_context(tradeoff) | made()))


def plan_of(run: Run) -> PlanPicture | None:
    """The plan of the best policy of the last round, or of the leader so far; None where the run says too little."""
    policy = shown_policy(run)
    if run.search_record is None or policy is None:
        return None
    return draw(run.search_record.plan(policy), run.search_record.full_table)


def provenance(run: Run) -> Mapping[str, str]:
    """Where the figures come from."""
    config, facts = run.config, {"study": run.study.study_name}
    if run.search_record is not None:
        facts["model"] = run.search_record.model
    for key, heading in (
        ("model", "denoiser and scheduler"),
        ("budget", "budget"),
        ("full_steps", "steps of the full run"),
        ("images", "tuning pictures a candidate"),
        ("held_out_images", "held-out pictures a run"),
        ("guidance_scale", "guidance scale"),
        ("seed", "seed"),
        ("scorer", "judge of alignment"),
        ("network", "network of the distance"),
        ("distance", "estimator of the distance"),
        ("reference", "reference"),
        ("weights", "digest of the weights"),
    ):
        if config.get(key) is not None:
            facts[heading] = str(config[key])
    if config.get("judges"):
        facts["judges"] = ", ".join(config["judges"])
    if config.get("exact"):
        facts["exact runs"] = config["exact"]
    if run.search_record is not None and run.search_record.exact_share:
        facts["share of exact runs"] = (
            f"{run.search_record.exact_share:.1%} of the FLOPs that the search's pictures took"
        )
    if run.search_record is not None:
        facts |= {f"seconds, {what}": f"{seconds:,.1f}" for what, seconds in run.search_record.seconds.items()}
    facts |= {f"call's {name}": str(value) for name, value in config.get("call", {}).items()}
    if not run.aligned:
        facts["alignment"] = f"not measured: the {run.noun} have no prompts that differ"
    if "height" in config:
        facts["size"] = f"{config['height']} x {config['width']} pixels"
    policy = run.policy
    if policy is not None and policy.provenance is not None:
        made = policy.provenance
        facts |= {"exported": made.date or "at an unknown time"}
        facts |= {f"version of {name}": version for name, version in made.versions.items()}
        if made.checksum:
            facts["checksum of policy.json"] = made.checksum
    return facts


def made() -> dict[str, str]:
    """When a page was made, and by which release."""
    now = datetime.datetime.now(datetime.UTC)
    return {"made": now.strftime("%Y-%m-%d %H:%M UTC"), "version": autotune.__version__}


def shown_policy(run: Run) -> Policy | None:
    """The best policy of the last round, or the leader so far."""
    if run.last_round is not None:
        return run.last_round.headline_runs[-1].policy
    return run.policy_of(run.best) if run.best else None


def plots_of(run: Run, importance: Mapping[str, float]) -> dict[str, Plot]:
    """Every plot that the run has got far enough for, by its id."""
    found: list[Plot] = []
    if run.evaluated:
        found += [
            Plot(
                "frontier",
                "All candidates: cost against loss",
                f"Each point is a policy, scored on the tuning {run.noun}; bars are 95 % intervals"
                + (" of the recipes and the ten best" if len(run.evaluated) > plots.MOST_BARS else "")
                + ". Known recipes carry"
                " their name. Steps are solved from the budget, so most points lie just below it.",
                plots.frontier(run),
            ),
            Plot(
                "progress",
                "Progress of the search",
                f"Candidates in their order, on the tuning {run.noun}; crosses at zero are those that failed.",
                plots.progress(run),
            ),
        ]
    if importance:
        found.append(
            Plot(
                "importance",
                "Which knobs mattered",
                "Share of each knob in what tells the best tenth of the candidates from the rest (PED-ANOVA). Steps are"
                " not among them: they are solved from the budget.",
                plots.importances(importance),
            )
        )
    policy = shown_policy(run)
    breakdown = run.search_record.breakdown(policy) if run.search_record is not None and policy is not None else None
    if breakdown is not None:
        found += [
            Plot("by-step", "Cost by step", "FLOPs of each call of the denoiser.", plots.cost_by_step(breakdown)),
            Plot("by-kind", "Cost by kind of unit", "All calls together.", plots.cost_by_unit(breakdown.groups)),
            Plot("by-part", "Cost by part of the denoiser", "All calls together.", plots.cost_by_unit(breakdown.parts)),
        ]
    return {plot.id: plot for plot in found}


@cache
def template(name: str) -> Any:
    """A page or part of one, by its file."""
    environment = Environment(
        loader=PackageLoader("autotune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plotly_js"] = _plotly
    environment.globals["included"] = lambda name: Markup(_source(environment, name))
    return environment.get_template(name)


def _source(environment: Environment, name: str) -> str:
    """A file of this package, which needs no escaping."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
