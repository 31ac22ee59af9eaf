"""``postdiff price``: figures that are the pricer's, tables that can be read anywhere, JSON with the same figures."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autotune.cli import run
from autotune.cli.models import ModelSource
from autotune.cli.price import print_price
from autotune.cli.price_text import Bar, Scale, print_quote
from autotune.cli.quote import Quote, quote
from autotune.core.errors import InputError
from autotune.cost import Pricer
from autotune.cost.encoder_decoder import EncoderDecoderCost, encoder_decoder_cost
from autotune.cost.work import Work
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from tests.support.builders import FAMILIES
from tests.support.profiles import synthetic_profile
from tests.support.tiny import tiny_sd

from .conftest import documented

PIPE = tiny_sd()
POLICY = Policy(
    steps=10,
    resolution=(ResolutionStage(scale=0.5, until_step=3),),
    guidance=Guidance(stop_step=7),
    cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 3, 5, 6)),),
)
FULL = Policy(steps=50)


def quoted(policy: Policy = POLICY, *, timed: bool = True, **options: Any) -> Quote:
    target = synthetic_profile(Pricer(PIPE), (1, 2)) if timed else None
    return quote(PIPE, policy, model="tiny", target=target, **options)


def text_of(found: Quote, width: int | None = None, encoding: str = "utf-8") -> str:
    output = io.BytesIO()
    file = io.TextIOWrapper(output, encoding=encoding, write_through=True)
    print_quote(found, file, width)
    return output.getvalue().decode(encoding)


def rows_of(found: Quote, **options: Any) -> list[list[str]]:
    """The cells of the table of calls, without its bar."""
    lines = text_of(found, **options).splitlines()
    first = next(place for place, line in enumerate(lines) if "─" in line) + 1
    end = next(place for place, line in enumerate(lines[first:], first) if not line.strip())
    return [line.split()[:-1] for line in lines[first:end]]


@pytest.mark.parametrize("batch", [1, 2])
def test_json_has_the_pricers_figures(batch: int) -> None:
    pricer = Pricer(PIPE)
    timed = pricer.on(synthetic_profile(pricer, (1, 2)))
    document = json.loads(json.dumps(quoted(batch=batch).to_dict()))

    cost, full = timed.price(POLICY, batch), timed.price(FULL, batch)
    assert document | asdict(cost) == document
    assert document["full"] == {"steps": 50} | asdict(full)
    assert [document[key] for key in ("policy", "model", "height", "width", "batch", "device")] == [
        POLICY.id,
        "tiny",
        32,
        32,
        batch,
        "a GPU",
    ]
    for parts in ("steps", "groups", "parts"):
        assert sum(part["flops"] for part in document[parts]) == cost.flops
    assert [call["index"] for call in document["steps"]] == list(range(10))
    assert all(call["latency_ms"] > 0 for call in document["steps"])
    around = encoder_decoder_cost(PIPE)
    assert around.vae_decoder is not None
    assert document["encoder_decoder"]["vae_decoder"] == asdict(around.vae_decoder * batch)
    assert document["encoder_decoder"]["text_encoders"] == {
        name: asdict(work * batch) for name, work in around.text_encoders.items()
    }


def test_without_a_target_there_are_no_times() -> None:
    found = quoted(timed=False)
    document = found.to_dict()
    assert (document["latency_ms"], document["device"], document["full"]["latency_ms"]) == (None, None, None)
    assert " ms" not in text_of(found)
    assert "latency" not in text_of(found)


def test_text_has_the_same_figures() -> None:
    found = quoted(batch=2)
    text, cost = text_of(found), found.cost
    assert f"{POLICY.id} on tiny\n32 x 32 pixels, latents 8 x 8, 2 pictures in a call" in text
    # One unit for what can be compared.
    assert (
        f"{cost.flops / 1e6:,.3f}  MFLOPs  {cost.relative:.1%} of the full run's {found.full.flops / 1e6:,.3f}" in text
    )
    assert f"{cost.macs_conv_linear / 1e6:,.3f}  MMACs" in text
    assert cost.latency_ms is not None and found.full.latency_ms is not None
    assert f"{cost.latency_ms:,.1f}  ms      {cost.latency_ms / found.full.latency_ms:.1%} of the full run's" in text
    assert f"{cost.cache_bytes / 1024:,.2f}  KiB" in text
    assert f"{cost.latent_bytes / 1024:,.2f}  KiB" in text
    for group in (*found.breakdown.groups, *found.breakdown.parts):
        share = group.flops / group.full_flops
        row = next(line for line in text.splitlines() if line.startswith(f" {group.name} ") and f"{share:.1%}" in line)
        assert row.split("%")[0].split()[-3:-1] == [
            f"{group.full_flops / 1e6:,.3f}",
            f"{group.flops / 1e6:,.3f}",
        ]


def test_alike_calls_in_a_row_are_one_line() -> None:
    assert [row[0] for row in rows_of(quoted())] == ["0", "1-2", "3", "4", "5", "6", "7-9"]
    (row,) = rows_of(quoted(Policy(steps=10), timed=False))
    units = len(Pricer(PIPE).structure.units)
    assert (row[:5], row[-1]) == (["0-9", "8x8", "yes", str(units), "0"], "100.0%")
    (row,) = rows_of(quoted(Policy(steps=1), timed=False))
    assert row[0] == "0"


def test_where_nothing_is_guided_nothing_is_said_of_it() -> None:
    (row,) = rows_of(quoted(Policy(steps=10), timed=False, guided=False))
    assert row[:3] == ["0-9", "8x8", str(len(Pricer(PIPE).structure.units))]
    assert "guided" not in text_of(quoted(Policy(steps=10), timed=False, guided=False))


def test_a_second_order_solver_has_its_calls_counted() -> None:
    from diffusers import HeunDiscreteScheduler

    pipe = tiny_sd(scheduler=HeunDiscreteScheduler(steps_offset=1))
    rows = rows_of(quote(pipe, Policy(steps=4, guidance=Guidance(stop_step=2)), model="tiny"))
    assert [row[:2] for row in rows] == [["0-1", "4"], ["2-3", "3"]]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_nothing_is_cut_off(width: int) -> None:
    text = text_of(quoted(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in rows_of(quoted(), width=width):
        assert len(row) == 9
    assert "up_blocks.2" in text
    assert "\x1b" not in text


def test_ascii_only() -> None:
    text = text_of(quoted(), 80, "ascii")
    assert "100.0%" in text
    assert "#" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("bar", "drawn"),
    [
        (Bar(0), "░" * 10),
        (Bar(1), "█" * 10),
        (Bar(0.5), "█████░░░░░"),
        (Bar(0.1875), "█▉░░░░░░░░"),
        (Bar(1e-6), "▏░░░░░░░░░"),
        (Bar(0.2, 0.4), "██░░"),
        (Bar(0.4, 0.2), "████"),
    ],
)
def test_bars(bar: Bar, drawn: str) -> None:
    output = io.StringIO()
    Console(file=output, width=10).print(bar)
    assert output.getvalue().strip() == drawn


def test_units_fit_the_largest_figure() -> None:
    assert (Scale.of_work(3 * 10**12).unit, Scale.of_work(999 * 10**9).unit, Scale.of_work(5).unit) == ("T", "G", "M")
    assert Scale.of_work(10**12).shown(1_234_567_000_000_000) == "1,234.567"
    assert [Scale.of_times(largest).shown(1.234) for largest in (99, 101)] == ["1.23", "1.2"]
    assert Scale.of_bytes(2**30).shown(2**29) == "0.50"
    assert Scale.of_bytes(0).unit == "KiB"


def test_what_is_not_counted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    around = EncoderDecoderCost({"text_encoder_2": Work(2 * 10**6, 1)}, None, (("vae", "nobody knows it"),))
    monkeypatch.setattr("autotune.cli.quote.encoder_decoder_cost", lambda *_, **__: around)
    text = text_of(quoted())
    assert "text encoder 2" in text
    assert "VAE decoder" not in text
    assert "vae: nobody knows it" in text


def test_the_full_run_is_the_one_the_policy_names() -> None:
    from autotune.runtime import describe_model

    info = describe_model(PIPE).model_copy(update={"full_steps": 20})
    found = quoted(Policy(steps=5, model=info), timed=False)
    assert (found.full_steps, found.cost.relative) == (20, 0.25)
    assert found.cost.flops * 4 == found.full.flops


def test_another_size() -> None:
    found = quoted(Policy(steps=5), timed=False, height=64, width=32)
    assert (found.height, found.width, found.latents) == (64, 32, (16, 8))
    assert "64 x 32 pixels, latents 16 x 8" in text_of(found)


def test_the_command_prints_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ModelSource, "weightless_pipeline", lambda *_, **__: PIPE)
    source = ModelSource("tiny", None)
    print_price(source, POLICY, batch=2, as_json=True)
    print_price(source, POLICY, batch=2)
    found = quoted(timed=False, batch=2)
    document, _, text = capsys.readouterr().out.partition("\n")
    assert json.loads(document) == json.loads(json.dumps(found.to_dict()))
    assert json.loads(document).keys() == documented("price")
    assert text == text_of(found)


def test_the_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Policy(steps=8).save(tmp_path / "policy.json")
    assert run(["price", str(tmp_path / "policy.json")]) == 0
    captured = capsys.readouterr()
    assert "s8 on emoji-unet" in captured.out
    assert "40.0% of the full run" in captured.out
    assert captured.err == ""


def test_a_strength_leaves_out_the_first_steps_of_image_to_image_alone() -> None:
    pipe = FAMILIES["sd-img2img"].make()
    half, whole = (quote(pipe, Policy(steps=10), model="tiny", strength=strength).cost for strength in (0.5, None))
    assert half.flops * 2 == whole.flops
    with pytest.raises(InputError, match="StableDiffusionPipeline takes none"):
        quoted(strength=0.5)
