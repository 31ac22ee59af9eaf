"""Reading what a search asks a pipeline for; every refusal is one sentence that names the row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autotune.core.errors import InputError
from autotune.evaluation.inputs import (
    Inputs,
    Row,
    in_memory,
    read_rows,
    rows_of_prompts,
    say_different,
    seed_rows,
    to_json,
)
from autotune.quality import split

COLOUR = (200, 100, 50)
GRAY = (119, 119, 119)


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def save(path: Path, colour: tuple[int, int, int] = COLOUR, size: tuple[int, int] = (6, 4)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 6), 119 * 257, np.uint16))


def turned() -> Image.Image:
    """Held upright by its camera, four wide and six high, but stored lying."""
    image = Image.new("RGB", (6, 4), COLOUR)
    image.getexif()[0x0112] = 6
    return image


PICTURES: dict[str, tuple[Callable[[], Image.Image], str, tuple[int, int], tuple[int, int, int]]] = {
    "RGB": (lambda: Image.new("RGB", (6, 4), COLOUR), "png", (6, 4), COLOUR),
    "RGBA": (lambda: Image.new("RGBA", (6, 4), (*COLOUR, 10)), "png", (6, 4), COLOUR),
    "P": (lambda: Image.new("RGB", (6, 4), COLOUR).quantize(8), "png", (6, 4), COLOUR),
    "L": (lambda: Image.new("L", (6, 4), 119), "png", (6, 4), GRAY),
    "LA": (lambda: Image.new("LA", (6, 4), (119, 3)), "png", (6, 4), GRAY),
    "1": (lambda: Image.new("1", (6, 4), 1), "png", (6, 4), (255, 255, 255)),
    "16 bit": (sixteen_bits, "png", (6, 4), GRAY),
    "16 bit TIFF": (sixteen_bits, "tiff", (6, 4), GRAY),
    "CMYK": (lambda: Image.new("CMYK", (6, 4), (55, 155, 205, 0)), "tiff", (6, 4), COLOUR),
    "rotated by EXIF": (turned, "png", (4, 6), COLOUR),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_any_mode_are_read_upright_and_in_rgb(kind: str, tmp_path: Path) -> None:
    make, suffix, size, colour = PICTURES[kind]
    image = make()
    image.save(tmp_path / f"cat.{suffix}", exif=image.getexif())
    (row,) = read_rows(write(tmp_path, {"image": f"cat.{suffix}"}))
    picture = row.pictures["image"]
    assert picture.size == size
    opened = picture.opened()
    assert (opened.mode, opened.size) == ("RGB", size)
    assert np.abs(np.asarray(opened).astype(int) - colour).max() <= 1


def test_pictures_are_resized_as_a_whole(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    image.paste((0, 0, 0), (20, 0, 40, 20))
    image.save(tmp_path / "half.png")
    (row,) = read_rows(write(tmp_path, {"mask_image": "half.png"}))
    gray = row.pictures["mask_image"].opened((8, 8), gray=True)
    assert (gray.mode, gray.size) == ("L", (8, 8))
    assert gray.getpixel((0, 4)) == 255 and gray.getpixel((7, 4)) == 0


def test_rows_are_known_by_their_content_wherever_their_pictures_lie(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "cat.png")
    here, there = (read_rows(write(tmp_path / folder, {"image": "cat.png"}))[0] for folder in ("a", "b"))
    assert here.key == there.key and here == there
    save(tmp_path / "b" / "cat.png", (1, 2, 3))
    assert read_rows(tmp_path / "b" / "rows.jsonl")[0].key != here.key


def test_the_key_of_a_prompt_is_the_prompt(tmp_path: Path) -> None:
    given = (" a red apple ", "a red apple", "cafe\u0301")
    rows = read_rows(write(tmp_path, *({"prompt": prompt} for prompt in given), ""))
    assert [row.key for row in rows] == ["a red apple", "caf\u00e9"]
    assert rows == rows_of_prompts(["a red apple", "caf\u00e9"])


def test_sides_are_those_of_prompts(tmp_path: Path) -> None:
    prompts = [f"thing {number}" for number in range(40)]
    tuning, held_out = Inputs(rows_of_prompts(prompts)).split()
    assert ([row.key for row in tuning.rows], [row.key for row in held_out.rows]) == split(prompts)
    longer, _ = Inputs(rows_of_prompts([*prompts, "another"])).split()
    assert {row.key for row in tuning.rows} <= {row.key for row in longer.rows}


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ({"prompt": "a cat"}, "a cat"),
        ({"prompt": "a cat", "negative_prompt": "blurry"}, "a cat"),
        ({"class_label": 207}, "class 207"),
        ({"prompt": "a cat", "image": "cat.png"}, "a cat (cat.png)"),
        ({"prompt": "", "image": "cat.png", "mask_image": "cat.png"}, "cat.png"),
    ],
)
def test_labels_are_for_people(arguments: dict[str, Any], label: str, tmp_path: Path) -> None:
    save(tmp_path / "cat.png")
    (row,) = read_rows(write(tmp_path, arguments))
    assert row.label == label


def test_names_of_inputs(tmp_path: Path) -> None:
    save(tmp_path / "cat.png")
    nouns = [
        Inputs(read_rows(write(tmp_path, arguments))).noun
        for arguments in ({"prompt": "a"}, {"class_label": 1}, {"prompt": "a", "image": "cat.png"})
    ]
    assert nouns == ["prompts", "classes", "inputs"] and Inputs(seed_rows(2)).noun == "seeds"
    assert [row.label for row in seed_rows(2)] == ["seed row 1", "seed row 2"]


def test_prompts_that_say_the_same_say_nothing_different() -> None:
    assert say_different(rows_of_prompts(["a", "b", "b"]))
    assert not say_different(rows_of_prompts(["a", "a"]))
    assert not say_different(rows_of_prompts(["a", ""]))
    assert not say_different([Row({"class_label": 1}), Row({"class_label": 2})])


REFUSED: dict[str, tuple[str, Any, str]] = {
    "no file": ("missing.jsonl", None, "missing.jsonl: No such file"),
    "empty": ("rows.jsonl", ["", " "], "holds no input; write one JSON object a line"),
    "not JSON": ("rows.jsonl", ['{"prompt": '], "line 1: is not JSON"),
    "not an object": ("rows.jsonl", [{"prompt": "a"}, "a"], "line 2: is not JSON"),
    "a text": ("rows.jsonl", ['"a"'], "line 1: is 'a'; write an object"),
    "a missing picture": ("rows.jsonl", [{"image": "dog.png"}], "dog.png: cannot be read (No such file"),
    "no picture": ("rows.jsonl", [{"image": "notes.png"}], "notes.png: cannot be read as a picture (no whole picture)"),
    "half a picture": ("rows.jsonl", [{"image": "half.png"}], "half.png: cannot be read as a picture"),
    "a number for a picture": ("rows.jsonl", [{"image": 3}], "line 1: image is 3; give the path of a picture"),
    "no pictures": ("rows.jsonl", [{"ip_adapter_image": []}], "ip_adapter_image is an empty list; give a picture for"),
    "several to begin with": (
        "rows.jsonl",
        [{"image": ["cat.png"]}],
        "image is ['cat.png']; give the path of a picture",
    ),
    "one of several": ("rows.jsonl", [{"ip_adapter_image": ["cat.png", "dog.png"]}], "ip_adapter_image 2: "),
    "two kinds": ("rows.jsonl", [{"prompt": "a"}, {"class_label": 1}], "line 2 has 'class_label' and"),
    "a number for a text": ("rows.jsonl", [{"prompt": 3}], "line 1: prompt is 3; give a text in quotes"),
    "a text for a class": ("rows.jsonl", [{"class_label": "cat"}], "class_label is 'cat'; give the number of a class"),
    "half a character": ("rows.jsonl", ['{"prompt": "\\ud800"}'], "half of a surrogate pair"),
    "not a number": ("rows.jsonl", ['{"strength": NaN}'], "line 1: strength is nan; give what JSON can hold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_rows_are_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    name, rows, words = REFUSED[case]
    (tmp_path / "notes.png").write_text("no picture")
    whole = save(tmp_path / "cat.png", size=(64, 64)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) - 30])
    if rows is not None:
        write(tmp_path, *rows, name=name)
    with pytest.raises(InputError) as refused:
        read_rows(tmp_path / name)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_rows_reach_another_process_where_the_files_are_the_same(tmp_path: Path) -> None:
    save(tmp_path / "cat.png")
    rows = read_rows(write(tmp_path, {"prompt": "a", "image": "cat.png", "strength": 0.5}))
    travelling = json.loads(json.dumps(to_json(rows)))
    assert read_rows(travelling) == rows and not in_memory(rows)
    save(tmp_path / "cat.png", (1, 2, 3))
    with pytest.raises(InputError, match=r"cat.png: holds another picture here than where the search began; copy that"):
        read_rows(travelling)


def test_a_picture_that_changes_under_a_search_is_noticed(tmp_path: Path) -> None:
    save(tmp_path / "cat.png")
    (row,) = read_rows(write(tmp_path, {"image": "cat.png"}))
    save(tmp_path / "cat.png", (1, 2, 3))
    with pytest.raises(InputError, match="cat.png: holds another picture than when the search began"):
        row.pictures["image"].opened()


def test_pictures_may_be_in_memory() -> None:
    rows = read_rows([{"image": Image.new("L", (6, 4), 119)}, {"image": Image.new("L", (6, 4), 3)}])
    assert len(rows) == 2 and in_memory(rows)
    assert rows[0].pictures["image"].opened((3, 2)).getpixel((0, 0)) == GRAY
    assert rows[0].label == "a picture in memory"
    with pytest.raises(InputError, match=r"inputs, row 1: image: a picture in memory: its values are floating-point"):
        read_rows([{"image": Image.new("F", (6, 4))}])


def test_several_adapters_see_a_picture_each(tmp_path: Path) -> None:
    for name, colour in (("cat.png", COLOUR), ("dog.png", (1, 2, 3))):
        save(tmp_path / name, colour)
    rows = read_rows(write(tmp_path, {"prompt": "a", "ip_adapter_image": ["cat.png", "dog.png"]}))
    cat, dog = rows[0].arguments["ip_adapter_image"]
    assert (cat.name, dog.name) == ("cat.png", "dog.png") and not rows[0].pictures
    assert read_rows(json.loads(json.dumps(to_json(rows)))) == rows and not in_memory(rows)
    assert cat.digest in rows[0].key and dog.digest in rows[0].key
    assert in_memory(read_rows([{"ip_adapter_image": [tmp_path / "cat.png", Image.new("RGB", (6, 4))]}]))
