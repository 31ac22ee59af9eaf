from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import autotune
from autotune.core.errors import InputError
from autotune.quality.judges import JUDGES, fingerprint, load_judge, measure
from autotune.quality.tensors import check_judged


@pytest.mark.parametrize("name", JUDGES)
def test_every_loader_exists(name: str) -> None:
    module, _, function = JUDGES[name].loader.partition(":")
    assert callable(getattr(import_module(f"autotune.quality.judges.{module}"), function))


def test_there_is_no_other_judge() -> None:
    for use in (load_judge, measure, fingerprint):
        with pytest.raises(InputError, match="no judge called 'dinov3'; did you mean 'dinov2'"):
            use("dinov3")


@pytest.mark.parametrize("name", JUDGES)
def test_what_is_missing_is_said_in_one_sentence_with_the_place_for_it(
    name: str, nothing_at_hand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "inception":
        monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError) as caught:
        load_judge(name)
    said = str(caught.value)
    assert "\n" not in said and ". " not in said and len(said) < 400
    if name == "inception":
        assert "pip install torch-fidelity" in said
        return
    place = nothing_at_hand / "judges" / name if JUDGES[name].files else nothing_at_hand / "torch" / "hub"
    assert str(place) in said
    assert (JUDGES[name].elsewhere or "HF_HUB_OFFLINE is set") in said
    for file in JUDGES[name].files:
        assert file.name in said


def test_asking_for_names_loads_no_torch() -> None:
    script = "import sys; from autotune.quality.judges import JUDGES; assert JUDGES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(autotune.__file__).parents[1])


def test_the_readme_has_a_row_for_each() -> None:
    text = (Path(autotune.__file__).parent / "quality" / "README.md").read_text(encoding="utf-8")
    for name, judge in JUDGES.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {judge.kind} |" in row
        assert all(file.repository in row for file in judge.files)
        assert judge.elsewhere is None or judge.elsewhere in row


def test_numbers_that_are_none_are_refused_by_row() -> None:
    values = torch.ones(5, 3)
    assert torch.equal(check_judged(values, "x"), values)
    values[1, 2], values[1, 0], values[4, 1] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(InputError, match=r"^judge x: what it says of 2 of 5 inputs is not finite"):
        check_judged(values, "x")
