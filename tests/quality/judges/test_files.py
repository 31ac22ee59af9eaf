from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from autotune.core.errors import InputError
from autotune.quality.judges.files import HubFile, find, judges_folder, known_as, tensors_of

FILES = (
    HubFile("somebody/judge", ("config.json",)),
    HubFile("somebody/judge", ("model.safetensors", "pytorch_model.bin")),
)


def test_a_judges_own_folder_comes_first(own_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder("judge")
    (folder / "config.json").touch()
    (folder / "pytorch_model.bin").touch()
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    assert find("judge", FILES) == {
        "config.json": folder / "config.json",
        "model.safetensors": folder / "pytorch_model.bin",
    }
    (folder / "model.safetensors").touch()
    assert find("judge", FILES)["model.safetensors"] == folder / "model.safetensors"


def test_a_folder_that_lacks_a_file_is_not_filled_from_elsewhere(own_folder: Callable[[str], Path]) -> None:
    folder = own_folder("judge")
    (folder / "config.json").touch()
    with pytest.raises(InputError, match=f"^judge judge: {folder} lacks model.safetensors; put that of somebody/judge"):
        find("judge", FILES)


def test_folders_lie_in_the_cache_unless_a_variable_names_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTDIFF_CACHE", str(tmp_path))
    monkeypatch.delenv("POSTDIFF_JUDGES", raising=False)
    assert judges_folder() == tmp_path / "judges"
    monkeypatch.setenv("POSTDIFF_JUDGES", "~/mine")
    assert judges_folder() == Path.home() / "mine"


def test_what_the_hubs_cache_holds_is_used_offline(nothing_at_hand: Path) -> None:
    repository = nothing_at_hand / "hub" / "models--somebody--judge"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    for name in ("config.json", "pytorch_model.bin"):
        (snapshot / name).touch()
    assert find("judge", FILES) == {
        "config.json": snapshot / "config.json",
        "model.safetensors": snapshot / "pytorch_model.bin",
    }


def test_nothing_else_is_fetched_and_the_second_spelling_only_without_the_first(
    nothing_at_hand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return f"/there/{name}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert find("judge", FILES)["model.safetensors"] == Path("/there/pytorch_model.bin")
    assert asked == [("somebody/judge", name) for name in ("config.json", "model.safetensors", "pytorch_model.bin")]


def test_what_the_hub_says_is_passed_on(nothing_at_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> str:
        raise RuntimeError("certificate expired\nmore of it")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(InputError, match=r"which cannot be had \(certificate expired\); put config.json and model"):
        find("judge", FILES)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_tensors_come_from_either_format(name: str, tmp_path: Path) -> None:
    tensors = {"a.weight": torch.arange(3.0)}
    (save_file if name.endswith("safetensors") else torch.save)(tensors, tmp_path / name)
    assert torch.equal(tensors_of("judge", tmp_path / name)["a.weight"], torch.arange(3.0))


@pytest.mark.parametrize("content", [{"a": nn.Linear(2, 2)}, [torch.ones(1)], {"a": 1}, {"a": {"b": torch.ones(1)}}])
def test_pickles_of_anything_else_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"^judge judge: .*weights.pt cannot be loaded") as caught:
        tensors_of("judge", tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_files_that_are_cut_short_are_refused(name: str, tmp_path: Path) -> None:
    (save_file if name.endswith("safetensors") else torch.save)({"a": torch.ones(99)}, tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be loaded"):
        tensors_of("judge", tmp_path / name)


def test_a_judge_is_known_by_its_files_not_their_place(tmp_path: Path) -> None:
    def written(folder: str, ends: bytes) -> list[Path]:
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "weights"
        path.write_bytes(bytes(200_000) + ends)
        return [path]

    one, two, three = (known_as("judge", written(*each)) for each in (("a", b"1"), ("b", b"1"), ("c", b"2")))
    assert one == two != three
    assert one.startswith("judge@")
