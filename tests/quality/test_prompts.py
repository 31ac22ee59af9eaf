from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.core.errors import InputError
from autotune.quality import load_prompts, split

PROMPTS = ["a red apple", "ein Käfer", "a dog, running"]
TEXT = "\n".join(PROMPTS)


def written(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_text_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    assert load_prompts(written(tmp_path, "prompts.txt", TEXT.encode(encoding))) == PROMPTS


def test_utf_16_in_either_byte_order(tmp_path: Path) -> None:
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert load_prompts(written(tmp_path, "prompts.txt", mark + TEXT.encode(encoding))) == PROMPTS


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_blank_lines_repetitions_and_outer_blanks_are_dropped(tmp_path: Path, newline: str) -> None:
    lines = ["", "  b ", "a", "   ", "b", "\tc\t", "a", ""]
    assert load_prompts(written(tmp_path, "prompts.txt", newline.join(lines))) == ["b", "a", "c"]


def test_only_line_ends_cut_lines(tmp_path: Path) -> None:
    lines = ["café \x85 noir", "form\x0cfeed", "line\u2028separator"]
    assert load_prompts(written(tmp_path, "prompts.txt", "\n".join(lines))) == lines


def test_quotes_as_windows_writes_them(tmp_path: Path) -> None:
    assert load_prompts(written(tmp_path, "p.txt", b"a sign, \x93OPEN\x94, at a caf\xe9")) == [
        "a sign, “OPEN”, at a café"
    ]


def test_composed_and_decomposed_letters_are_one_prompt(tmp_path: Path) -> None:
    assert load_prompts(written(tmp_path, "p.txt", "ein K\u00e4fer\nein Ka\u0308fer\n")) == ["ein Käfer"]


@pytest.mark.parametrize("column", ["prompt", "caption", "Prompt", " CAPTION "])
def test_csv_takes_the_right_column(tmp_path: Path, column: str) -> None:
    rows = f'id,{column},style\n1,"a dog, running",x\n2,"two\nlines",y\n3,,z\n4\n'
    assert load_prompts(written(tmp_path, "p.csv", rows)) == ["a dog, running", "two\nlines"]


def test_csv_with_byte_order_mark_has_a_first_column(tmp_path: Path) -> None:
    assert load_prompts(written(tmp_path, "p.CSV", "prompt,id\na,1".encode("utf-8-sig"))) == ["a"]


def test_csv_prefers_prompt_to_caption(tmp_path: Path) -> None:
    assert load_prompts(written(tmp_path, "p.csv", "caption,prompt\nno,yes\n")) == ["yes"]


def test_jsonl_of_strings_and_objects(tmp_path: Path) -> None:
    lines = ["a", {"prompt": "b", "id": 1}, {"caption": "c"}]
    text = "\n\n".join(json.dumps(line) for line in lines) + "\n"
    assert load_prompts(written(tmp_path, "p.jsonl", text)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.txt", b" \n\n\t\n", "holds no prompt"),
        ("p.txt", b"\x89PNG\r\n\0\0\0", "not a text file"),
        ("p.txt", "a dog\n".encode("utf-16-le"), "not a text file in UTF-8, UTF-16"),
        ("p.txt", "a dog\n".encode("utf-32"), "not a text file"),
        ("p.txt", "犬".encode("utf-16") + b"x", "not a text file"),
        ("p.txt", b"\xef\xbb\xbfcaf\xe9", "not a text file"),
        ("p.txt", b"\x81\x8d\x8f", "not a text file"),
        ("p.jsonl", b'"\\ud800"\n', "line 1 holds half of a surrogate pair"),
        ("p.jsonl", b"[" * 100_000, "line 1 is nested too deeply"),
        ("p.csv", b"text,id\na,1\n", "expected a column called prompt or caption, found text, id"),
        ("p.csv", b"", "found none"),
        ("p.csv", b"prompt\n", "holds no prompt"),
        ("p.csv", b'prompt\n"never closed\n', "p.csv: "),
        ("p.jsonl", b'"a"\n{"prompt": \n', "line 2 is not JSON"),
        ("p.jsonl", b'{"text": "a"}\n', "line 1 is neither"),
        ("p.jsonl", b'{"prompt": 3}\n', "line 1 is neither"),
        ("p.json", b'["a", "b"]\n', "line 1 is neither"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_prompts(written(tmp_path, name, data))
    assert name in str(caught.value)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.txt: No such file"):
        load_prompts(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="Is a directory"):
        load_prompts(tmp_path)


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_a_hundred_thousand_lines(tmp_path: Path, suffix: str) -> None:
    prompts = [f"prompt number {i}" for i in range(100_000)]
    text = {
        "txt": "\n".join(prompts),
        "csv": "\n".join(["prompt", *prompts]),
        "jsonl": "\n".join(json.dumps({"prompt": p}) for p in prompts),
    }[suffix]
    assert load_prompts(written(tmp_path, f"p.{suffix}", text)) == prompts


@given(st.lists(st.text(max_size=20), max_size=30, unique=True), st.lists(st.text(max_size=20), max_size=10))
def test_adding_prompts_never_moves_one(prompts: list[str], added: list[str]) -> None:
    tuning, held_out = split(prompts)
    assert sorted(tuning + held_out) == sorted(prompts)
    more_tuning, more_held_out = split(added + prompts[::-1])
    assert set(tuning) <= set(more_tuning)
    assert set(held_out) <= set(more_held_out)


def test_sides_keep_order_and_have_about_their_shares() -> None:
    prompts = [f"prompt {i}" for i in range(4000)]
    for share in (0.0, 0.25, 0.6, 1.0):
        tuning, held_out = split(prompts, share)
        assert len(held_out) == pytest.approx(4000 * share, abs=120)
        assert tuning == [p for p in prompts if p in set(tuning)]
    assert set(split(prompts, 0.1)[1]) < set(split(prompts, 0.3)[1])


def test_the_split_is_pinned() -> None:
    """Published results name held-out prompts by this split: it must not change between versions."""
    assert split([f"prompt {i}" for i in range(12)])[1] == ["prompt 3", "prompt 8"]


def test_captions_held_out_of_training_fall_on_both_sides() -> None:
    data = pytest.importorskip("studies.emoji.data")
    captions = [c for c in (f"noto thing {i}" for i in range(4000)) if data.is_held_out(c)]
    tuning, held_out = split(captions)
    assert len(held_out) == pytest.approx(0.25 * len(captions), abs=30)
    assert len(tuning) + len(held_out) == len(captions) > 150


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_of_zero_to_one_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(["a"], share)
