from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from autotune.cost import Pricer
from autotune.plan import Action
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.report.plan_picture import PlanPicture, Row, draw, runs_of, shortened
from autotune.report.plan_svg import lay_out
from autotune.report.plan_text import PlanText
from autotune.report.plots.plan_chart import plan
from tests.support.builders import FAMILIES

POLICIES = {
    "full": Policy(steps=6),
    "reuse": Policy(steps=6, cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 3)),)),
    "forecast": Policy(
        steps=6, cache=(CacheRule(units=("**.attn2",), mode="forecast", order=1, compute_steps=(0, 1, 3)),)
    ),
    "all": Policy(
        steps=6,
        resolution=(ResolutionStage(scale=0.5, until_step=2),),
        guidance=Guidance(start_step=1, stop_step=4),
        cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 4)),),
    ),
}


@pytest.fixture(scope="module")
def pricer() -> Pricer:
    pipe: Any = FAMILIES["sd"].make()
    return Pricer(pipe)


def drawn(pricer: Pricer, policy: Policy, **options: bool) -> PlanPicture:
    return draw(pricer.plan(policy), pricer.table(pricer.height, pricer.width), **options)


@pytest.mark.parametrize("name", POLICIES)
def test_rows_hold_every_unit_once_and_say_what_the_plan_says(pricer: Pricer, name: str) -> None:
    policy = POLICIES[name]
    plan = pricer.plan(policy)
    folded, unfolded = drawn(pricer, policy), drawn(pricer, policy, unfold=True)

    assert sum(row.units for row in folded.rows) == len(unfolded.rows) == len(plan.structure.units)
    assert [row.actions for row in unfolded.rows] == [
        tuple(step.actions[unit] for step in plan.steps) for unit in range(len(plan.structure.units))
    ]
    for picture in (folded, unfolded):
        assert picture.outside is not None
        assert sum(row.share or 0 for row in picture.rows) + picture.outside == pytest.approx(1)
        assert len({row.label for row in picture.rows}) == len(picture.rows)
    assert len(folded.rows) < len(unfolded.rows)


def test_columns_say_size_guidance_and_handoff(pricer: Pricer) -> None:
    picture = drawn(pricer, POLICIES["all"])
    full = pricer.height
    assert [column.height for column in picture.columns] == [full // 2] * 2 + [full] * 4
    assert [column.guidance for column in picture.columns] == ["off", "on", "on", "on", "off", "off"]
    assert [column.handoff for column in picture.columns] == [None, "renoise", None, None, None, None]
    assert [(span.first, span.last) for span in picture.resolutions] == [(0, 1), (2, 5)]
    assert [span.text for span in picture.guided] == ["off", "on", "off"]


def test_guidance_that_reuses_its_difference_is_drawn_as_that(pricer: Pricer) -> None:
    guidance = Guidance(start_step=1, stop_step=5, compute_steps=(1, 4))
    picture = drawn(pricer, Policy(version=3, steps=6, guidance=guidance))
    assert [span.text for span in picture.guided] == ["off", "on", "reused", "on", "off"]
    console = Console(file=(text := io.StringIO()), width=100)
    console.print(PlanText(picture))
    assert (
        "guidance: off in call 1, on in call 2, reused in calls 3 to 4, on in call 5, off in call 6" in text.getvalue()
    )
    boxes = [(box.kind, box.title) for box in lay_out(picture).boxes if box.kind.startswith("guidance")]
    assert ("guidance again", "guidance reused, calls 3 to 4") in boxes
    bars = [bar for bar in plan(picture)["data"] if bar["name"].startswith("guidance")]
    assert [(bar["name"], bar["base"], bar["x"]) for bar in bars] == [
        ("guidance", [1.5, 4.5], [1, 1]),
        ("guidance reused", [2.5], [2]),
    ]


def test_stronger_guidance_is_named(pricer: Pricer) -> None:
    picture = drawn(pricer, Policy(version=4, steps=6, guidance=Guidance(start_step=1, stop_step=5, factor=1.25)))
    console = Console(file=(text := io.StringIO()), width=100)
    console.print(PlanText(picture))
    assert "guidance x1.25: off in call 1, on in calls 2 to 5, off in call 6" in text.getvalue()
    assert "guidance x1.25 on, calls 2 to 5" in {box.title for box in lay_out(picture).boxes}
    (bar,) = (bar for bar in plan(picture)["data"] if bar["name"] == "guidance")
    assert bar["y"] == ["guidance x1.25"]


def test_labels_are_short_and_exact(pricer: Pricer) -> None:
    rows = {row.label: row for row in drawn(pricer, POLICIES["reuse"]).rows}
    assert {"down_blocks.1", "mid_block", "up_blocks.1.upsamplers.0", "up_blocks.1 without upsamplers.0"} <= rows.keys()
    crossed = [row for row in drawn(pricer, POLICIES["forecast"]).rows if Action.FORECAST in row.actions]
    assert crossed and all("attn2" in row.label or "cross-attention" in row.label for row in crossed)


def test_a_transformers_blocks_are_named_by_range() -> None:
    pipe: Any = FAMILIES["pixart-alpha"].make()
    pricer = Pricer(pipe)
    rule = CacheRule(units=("transformer_blocks.0",), compute_steps=(0, 2))
    labels = [row.label for row in drawn(pricer, Policy(steps=4, cache=(rule,))).rows]
    assert any(label.startswith("transformer_blocks.0") for label in labels)
    assert any(label.startswith("transformer_blocks.1") for label in labels)


@pytest.mark.parametrize(
    ("label", "units", "short"),
    [
        ("down_blocks.1", 7, "down_blocks.1 (7 units)"),
        ("down_blocks.1: self-attention, cross-attention, feed-forward", 15, "down_blocks.1: self-att… (15 units)"),
        ("down_blocks.1: attention", 99999, "down_blocks.1: atten… (99999 units)"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2", 1, "down_blocks.1.attentions.0.t….attn2"),
        ("conv_in", 1, "conv_in"),
    ],
)
def test_long_labels_keep_where_and_how_many(label: str, units: int, short: str) -> None:
    assert shortened(Row(label, units, None, ()), " units", 35, "…") == short
    for most in range(12, 80):
        text = shortened(Row(label, units, None, ()), " units", most, "...")
        assert len(text) <= most and text[:1] in (label[:1], ".")


def test_stretches_cover_all_columns() -> None:
    actions = (Action.COMPUTE, Action.REUSE, Action.REUSE, Action.COMPUTE)
    assert runs_of(actions) == [(Action.COMPUTE, 0, 0), (Action.REUSE, 1, 2), (Action.COMPUTE, 3, 3)]


@pytest.mark.parametrize("name", POLICIES)
def test_boxes_of_the_drawing_do_not_overlap_and_stay_inside(pricer: Pricer, name: str) -> None:
    drawing = lay_out(drawn(pricer, POLICIES[name]))
    cells = [box for box in drawing.boxes if box.kind in {kind for kind, _ in drawing.legend}]
    picture = drawn(pricer, POLICIES[name])
    assert len(cells) == len(picture.rows) * len(picture.columns)
    for box in drawing.boxes:
        assert 0 <= box.x and box.x + box.width <= drawing.width
        assert 0 <= box.y and box.y + box.height <= drawing.height
    taken = sorted((box.y, box.x, box.x + box.width) for box in cells)
    for before, after in zip(taken, taken[1:], strict=False):
        assert before[0] != after[0] or before[2] <= after[1]
    assert f"{len(picture.columns)} calls" in drawing.summary


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [60, 100])
def test_the_terminal_shows_every_call_within_its_width(pricer: Pricer, encoding: str, width: int) -> None:
    policy = Policy(steps=70, cache=(CacheRule(units=("up_blocks.1",), compute_steps=tuple(range(0, 70, 3))),))
    picture = drawn(pricer, policy)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, highlight=False)
    console.print(PlanText(picture))
    stream.flush()
    stream.seek(0)
    lines = stream.read().splitlines()
    assert max(map(len, lines)) <= width
    guidance = "".join(line.split()[-1] for line in lines if line.startswith("guidance "))
    assert len(guidance) == 70 and len(set(guidance)) == 1
    assert any("reuse" in line and "not needed" in line for line in lines)
