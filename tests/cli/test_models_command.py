"""``postdiff models``: complete, and in agreement with what the package does."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest

from autotune.cli import run
from autotune.cli.packaged_studies import study_files
from autotune.cli.supported import SupportedPipeline, shipped_models, supported_pipelines, supported_schedulers
from autotune.models.shipped import DEMO_NAMES
from autotune.pipelines.families import supported
from autotune.runtime.schedulers import check_scheduler


def test_every_supported_pipeline_is_listed_with_how_it_guides() -> None:
    listed = supported_pipelines()
    assert [(entry.pipeline, entry.denoiser, entry.notes) for entry in listed] == supported()
    guidance = {entry.pipeline: entry.guidance for entry in listed}
    assert guidance["StableDiffusionPipeline"] == guidance["PixArtSigmaPipeline"] == "batched"
    assert guidance["FluxPipeline"] == guidance["WanPipeline"] == guidance["QwenImagePipeline"] == "separate"
    assert guidance["DDPMPipeline"] == guidance["LatentConsistencyModelPipeline"] == "none"
    for entry in listed[:-1]:
        assert hasattr(diffusers, entry.pipeline), entry
        assert all(hasattr(diffusers, name) for name in entry.denoiser.split(" or ")), entry


def test_every_listed_scheduler_is_taken_with_every_prediction() -> None:
    listed = supported_schedulers()
    assert {"DDIMScheduler", "FlowMatchEulerDiscreteScheduler"} <= {entry.scheduler for entry in listed}
    for entry in listed:
        for prediction in entry.predictions:
            settings: dict[str, Any] = {"num_train_timesteps": 10}
            if not entry.scheduler.startswith("FlowMatch"):
                settings["prediction_type"] = prediction
                if prediction == "flow_prediction":
                    settings["use_flow_sigmas"] = True
            check_scheduler(getattr(diffusers, entry.scheduler)(**settings))


def test_tables_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert run(["models", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert [SupportedPipeline(**entry) for entry in document["pipelines"]] == supported_pipelines()
    assert [model["name"] for model in document["models"]] == list(DEMO_NAMES) == [m.name for m in shipped_models()]
    names = [entry["pipeline"] for entry in document["pipelines"]]
    names += [entry["scheduler"] for entry in document["schedulers"]]
    names += list(DEMO_NAMES)
    assert [study["name"] for study in document["studies"]] == [study.name for study in study_files()] != []
    names += [study["name"] for study in document["studies"]]
    assert all(name in text for name in names)
    assert max(map(len, text.splitlines())) <= 120
