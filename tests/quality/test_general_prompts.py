"""The shipped prompts, and that both sides of their split can be used."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.quality import general_categories, general_prompts, load_prompts, split

COUNTS = {
    "objects": 40, "scenes": 40, "counts": 35, "colours": 35, "relations": 35, "styles": 40, "text": 35, "people": 40,
}  # fmt: skip


def test_every_category_has_its_number() -> None:
    assert {category: len(prompts) for category, prompts in general_categories().items()} == COUNTS
    assert len(general_prompts()) == sum(COUNTS.values()) == 300


def test_no_prompt_comes_twice_nor_almost() -> None:
    words = [frozenset(re.findall(r"[a-z]+", prompt.lower())) for prompt in general_prompts()]
    assert len(set(general_prompts())) == len(set(words)) == 300
    alike = [(a, b) for i, a in enumerate(words) for b in words[:i] if len(a & b) > 0.7 * len(a | b)]
    assert not alike


def test_prompts_are_short_enough_for_text_encoders_and_vary_in_length() -> None:
    lengths = [len(prompt.split()) for prompt in general_prompts()]
    # CLIP reads 77 tokens, and a word is seldom more than two.
    assert min(lengths) >= 5 and max(lengths) <= 36
    assert sum(length > 20 for length in lengths) >= 20
    assert max(map(len, general_prompts())) <= 200


def test_prompts_are_plain_single_lines() -> None:
    for prompt in general_prompts():
        assert prompt == prompt.strip() and prompt.isascii() and prompt.isprintable() and "  " not in prompt
        assert prompt[0].isupper() and prompt[-1] not in ".,"


def test_text_to_be_rendered_stands_in_quotes_or_is_spelled_out() -> None:
    prompts = general_categories()["text"]
    assert sum(prompt.count('"') >= 2 and prompt.count('"') % 2 == 0 for prompt in prompts) >= 30


def test_prompts_do_not_all_begin_alike() -> None:
    for category, prompts in general_categories().items():
        ((_, most),) = Counter(" ".join(prompt.split()[:2]) for prompt in prompts).most_common(1)
        assert most <= 4, category


def test_the_file_keeps_to_its_format() -> None:
    lines = files("autotune.quality").joinpath("general.jsonl").read_text("utf-8").splitlines()
    assert all(json.loads(line).keys() == {"category", "prompt"} for line in lines)


@pytest.mark.parametrize("name", ["general", Path("general")])
def test_general_is_the_shipped_set_unless_a_file_is_called_that(
    name: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_prompts(name) == general_prompts()
    Path("general").write_text("my own\n")
    assert load_prompts(name) == ["my own"]


def test_both_sides_hold_prompts_of_every_category() -> None:
    tuning, held_out = split(general_prompts())
    assert 55 <= len(held_out) <= 95
    for category, prompts in general_categories().items():
        assert set(prompts) & set(tuning), category
        assert len(set(prompts) & set(held_out)) >= 3, category


@given(st.floats(0, 1), st.lists(st.text(min_size=1, max_size=30), max_size=20))
def test_sides_are_disjoint_and_stable_when_lines_are_added(share: float, added: list[str]) -> None:
    prompts = general_prompts()
    tuning, held_out = split(prompts, share)
    assert not set(tuning) & set(held_out)
    assert len(tuning) + len(held_out) == len(prompts)
    # Five standard deviations of a binomial count.
    assert abs(len(held_out) - share * len(prompts)) <= 5 * (share * (1 - share) * len(prompts)) ** 0.5 + 1
    later = split([*added, *prompts], share)
    assert not set(later[0]) & set(later[1])
    assert set(tuning) <= set(later[0]) and set(held_out) <= set(later[1])
