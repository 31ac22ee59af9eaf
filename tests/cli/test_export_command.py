"""``postdiff export``, and what of ``--devices`` only torch knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autotune.policy import Policy

from .conftest import Finished

Run = Callable[..., Finished]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    rule = {"units": ["transformer_blocks.1-4"], "mode": "residual", "compute_steps": [0, 1, 4]}
    path = tmp_path / "policy.json"
    Policy(steps=8, cache=[rule]).save(path)  # type: ignore[arg-type]
    return path


def test_it_writes_the_file_and_says_how_to_call(policy: Path, in_process: Run, tmp_path: Path) -> None:
    done = in_process("export", "policy.json", "--to", "cache-dit", "--out", "cache.yaml", "--model", "emoji-dit")
    assert (done.code, done.errors) == (0, "")
    said = "Wrote cache.yaml: call cache-dit with num_inference_steps=8, of which 3 compute all blocks\n"
    assert done.output == said
    assert "  steps_computation_mask: [1, 1, 0, 0, 1, 0, 0, 0]\n" in (tmp_path / "cache.yaml").read_text()


@pytest.mark.parametrize(
    ("engine", "model", "says"),
    [
        ("cache-dit", "emoji-unet", "policies for StableDiffusionPipeline cannot be exported to cache-dit"),
        ("diffusers", "emoji-dit", "PixArtTransformer2DModel has no enable_cache"),
    ],
)
def test_what_an_engine_cannot_run_is_one_sentence_and_no_file(
    engine: str, model: str, says: str, policy: Path, in_process: Run, tmp_path: Path
) -> None:
    refused = in_process("export", "policy.json", "--to", engine, "--out", "out", "--model", model)
    (line,) = refused.errors.splitlines()
    assert refused.code == 2 and says in line
    assert [*tmp_path.iterdir()] == [policy]


@pytest.mark.parametrize(
    ("devices", "gpus", "says"),
    [
        ("cuda:0,cuda:2", 2, "there is no cuda:2; this machine offers torch 2 GPUs, cuda:0 to cuda:1"),
        ("cuda:0,cuda:1", 0, "there is no cuda:0; this machine offers torch no GPU"),
        ("all", 0, "this machine offers torch no GPU; name devices, such as cpu,cpu"),
    ],
)
def test_devices_that_are_not_there(
    devices: str, gpus: int, says: str, in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    refused = in_process("tune", "--devices", devices)
    assert refused.code == 2 and says in refused.errors and not any(tmp_path.iterdir())
