"""Profile files: strict, and refused or doubted by name where they are of something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.cost import Pricer, Profile, load_profile, price
from autotune.cost.profile import Device, ProfileError
from autotune.policy import Policy
from tests.support.profiles import synthetic_profile
from tests.support.tiny import tiny_sd


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


@pytest.fixture(scope="module")
def profile(pipe: Any) -> Profile:
    return synthetic_profile(Pricer(pipe), (1, 4))


@pytest.fixture
def file(profile: Profile, tmp_path: Path) -> Path:
    path = tmp_path / "gpu.json"
    profile.save(path)
    return path


def test_a_saved_profile_is_the_same_when_loaded(profile: Profile, file: Path) -> None:
    assert load_profile(file) == profile
    assert load_profile(file).digest == profile.digest


Edit = Callable[[dict[str, Any]], Any]
EDITS: dict[str, tuple[Edit, str]] = {
    "negative": (lambda d: d["batches"][0]["calls"][0].update(always_ms=-1.0), "always_ms is -1.0"),
    "not finite": (lambda d: d["batches"][0]["calls"][0].update(forward_ms=float("nan")), "forward_ms is NaN"),
    "infinite unit": (lambda d: d["batches"][0]["calls"][0]["units_ms"].__setitem__(0, float("inf")), "units_ms.0"),
    "no time at all": (lambda d: d["batches"][0]["calls"][0].update(forward_ms=0.0), "forward_ms is 0.0"),
    "missing entry": (lambda d: d["batches"][0]["calls"][0].pop("units_ms"), "'batches.0.calls.0.units_ms' is missing"),
    "missing unit": (lambda d: d["batches"][1]["calls"][2]["units_ms"].pop(), "batch 4"),
    "missing device": (lambda d: d.pop("device"), "'device' is missing"),
    "no batch": (lambda d: d.update(batches=[]), "batches is"),
    "unknown key": (lambda d: d["device"].update(clock="fast"), "did you mean 'clocks'"),
    "a text for a number": (lambda d: d.update(launch_ms="0.1"), "launch_ms is '0.1'"),
    "another version": (lambda d: d.update(version=2), "profile version 2 is unknown"),
    "another format": (lambda d: d.update(format="postdiff-policy"), "not a profile"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_damaged_profile_is_refused_by_the_name_of_the_entry(name: str, file: Path) -> None:
    edit, says = EDITS[name]
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=says.replace(".", r"\.")) as refused:
        load_profile(file)
    assert str(refused.value).startswith(str(file)[-30:]) or file.name in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"a": 1, "a": 2}'])
def test_what_is_no_profile_is_refused(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(ProfileError):
        load_profile(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"denoiser_fingerprint": "0" * 16}, "denoiser fingerprint is '0000000000000000'"),
        ({"pipeline": "FluxPipeline"}, "pipeline is 'FluxPipeline'"),
        ({"height": 512}, "height is 512, here it is 32"),
        ({"guided": False}, "guided is false, here it is true"),
        ({"text_tokens": 7}, "text tokens is 7"),
    ],
)
def test_a_profile_of_something_else_is_refused_by_name(
    pipe: Any, profile: Profile, changes: dict[str, Any], says: str
) -> None:
    other = profile.model_copy(update={"model": profile.model.model_copy(update=changes)})
    with pytest.raises(ProfileError, match=says) as refused:
        price(pipe, Policy(steps=2), target=other)
    assert "a GPU" in str(refused.value)


def test_a_batch_without_times_is_refused(pipe: Any, profile: Profile) -> None:
    with pytest.raises(ProfileError, match="for batch 1, 4 and none for 2"):
        price(pipe, Policy(steps=2), batch_size=2, target=profile)


def test_another_precision_release_or_device_is_doubted_by_name(profile: Profile) -> None:
    here = Device(kind="cpu", name="a CPU", threads=2)
    doubts = profile.doubts(dtype="bfloat16", versions={"torch": "3"}, device=here)
    assert len(doubts) == 3
    for doubt, words in zip(
        doubts, (("float32", "bfloat16"), ("torch 2", "3"), ("a GPU", "a CPU, 2 threads")), strict=True
    ):
        assert all(word in doubt for word in words)
    assert not profile.doubts(dtype="float32", versions={"torch": "2"}, device=profile.device)
