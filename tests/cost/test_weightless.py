"""A pipeline made of configs alone is priced as the one with weights, and runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autotune.core.errors import InputError
from autotune.cost import Pricer
from autotune.cost.weightless import _settle, pipeline_from_configs
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import Policy
from autotune.runtime import applied, full_policy
from autotune.runtime.models import describe_model
from tests.support.builders import FAMILIES

# Of every architecture one.
DISTINCT = [
    "sd",
    "sdxl",
    "dit",
    "pixart-sigma",
    "hunyuandit",
    "sd3",
    "flux",
    "sana",
    "qwen-image",
    "z-image",
    "wan",
    "cogview4",
]
PRICED = ["sd", "sdxl", "sd3", "flux", "wan"]
WEIGHTS = (".safetensors", ".bin")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny family's pipeline, saved, without the files that hold its weights."""
    saved: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in saved:
            saved[family] = tmp_path_factory.mktemp(family)
            FAMILIES[family].make().save_pretrained(saved[family])
            for file in saved[family].rglob("*"):
                if file.suffix in WEIGHTS:
                    file.unlink()
        return saved[family]

    return save


@pytest.fixture
def sd(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of one's own to break."""
    return Path(shutil.copytree(folder_of("sd"), tmp_path / "sd"))


def change_index(folder: Path, **changes: Any) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def modules(pipe: Any) -> list[nn.Module]:
    return [component for component in pipe.components.values() if isinstance(component, nn.Module)]


def parameters(pipe: Any) -> list[nn.Parameter]:
    return [parameter for module in modules(pipe) for parameter in module.parameters()]


def refused(source: Any) -> str:
    with pytest.raises(InputError) as caught:
        pipeline_from_configs(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


# As the pipeline with weights


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_a_shipped_model_is_described_as_with_its_weights(name: str) -> None:
    assert describe_model(pipeline_from_configs(demo_assets(name).folder)) == describe_model(demo_pipeline(name))


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_a_shipped_model_is_priced_as_with_its_weights(name: str) -> None:
    loaded = demo_pipeline(name)
    policy = Policy(steps=7)
    assert Pricer(pipeline_from_configs(demo_assets(name).folder)).price(policy) == Pricer(loaded).price(policy)


@pytest.mark.parametrize("name", PRICED)
def test_families_are_described_as_with_its_weights(name: str, folder_of: Callable[[str], Path]) -> None:
    weightless = pipeline_from_configs(folder_of(name))
    assert describe_model(weightless) == describe_model(FAMILIES[name].make())


@pytest.mark.parametrize("name", PRICED)
def test_families_are_priced_as_with_its_weights(name: str, folder_of: Callable[[str], Path]) -> None:
    family = FAMILIES[name]
    costs = [
        Pricer(pipe, *family.size, frames=family.frames, full_steps=4).full_cost()
        for pipe in (pipeline_from_configs(folder_of(name)), family.make())
    ]
    assert costs[0] == costs[1]


# What it is made of


def test_on_meta_nothing_takes_memory(sd: Path) -> None:
    pipe = pipeline_from_configs(sd)
    tensors = [tensor for module in modules(pipe) for tensor in (*module.parameters(), *module.buffers())]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_of_the_wanted_dtype(sd: Path, dtype: torch.dtype) -> None:
    assert {parameter.dtype for parameter in parameters(pipeline_from_configs(sd, device="cpu", dtype=dtype))} == {
        dtype
    }


@pytest.mark.parametrize("name", ["sd", "wan", "sd3"])
def test_weights_are_finite(name: str, folder_of: Callable[[str], Path]) -> None:
    pipe = pipeline_from_configs(folder_of(name), device="cpu", dtype=torch.bfloat16)
    assert all(torch.isfinite(parameter).all() for parameter in parameters(pipe))


def test_weights_are_not_trained(sd: Path) -> None:
    assert not any(parameter.requires_grad for parameter in parameters(pipeline_from_configs(sd)))


def test_modules_are_evaluated(sd: Path) -> None:
    assert not any(module.training for module in modules(pipeline_from_configs(sd)))


def test_what_a_fresh_model_leaves_unset_is_drawn() -> None:
    module = nn.Linear(4, 4)
    with torch.no_grad():
        module.weight.fill_(float("nan"))
        module.bias.fill_(1e30)
    _settle(module, torch.float32)
    assert all(parameter.abs().max() < 1 for parameter in module.parameters())


def test_the_callers_default_dtype_is_left_alone(sd: Path) -> None:
    pipeline_from_configs(sd, dtype=torch.bfloat16)
    assert torch.get_default_dtype() == torch.float32


def test_a_safety_checker_is_left_out(sd: Path) -> None:
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    change_index(sd, safety_checker=checker, requires_safety_checker=True)
    pipe = pipeline_from_configs(sd)
    assert (pipe.safety_checker, pipe.config.requires_safety_checker) == (None, False)


def test_empty_components_stay_empty(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of("sd3"), tmp_path / "sd3"))
    change_index(folder, text_encoder_3=[None, None], tokenizer_3=[None, None])
    assert pipeline_from_configs(folder).text_encoder_3 is None


def test_settings_of_the_pipeline_are_kept(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder_of("sdxl"), tmp_path / "sdxl"))
    change_index(folder, force_zeros_for_empty_prompt=False)
    assert pipeline_from_configs(folder).config.force_zeros_for_empty_prompt is False


# Runs


@pytest.mark.parametrize("name", DEMO_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_shipped_model_runs(name: str, dtype: torch.dtype) -> None:
    assets = demo_assets(name)
    pipe = pipeline_from_configs(assets.folder, device="cpu", dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe("fluent red apple", num_inference_steps=2, output_type="pt", **assets.call).images
    assert (pictures.shape, bool(torch.isfinite(pictures).all())) == ((1, 3, 64, 64), True)


@pytest.mark.parametrize("name", DISTINCT)
def test_families_run(name: str, folder_of: Callable[[str], Path]) -> None:
    family = FAMILIES[name]
    pipe = pipeline_from_configs(folder_of(name), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    made = family.run(pipe, **family.arguments(steps=2))
    expected = family.run(family.make(), **family.arguments(steps=2))
    assert (made.shape, bool(torch.isfinite(made).all())) == (expected.shape, True)


def test_policies_apply_to_it(sd: Path) -> None:
    pipe = pipeline_from_configs(sd, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    with applied(pipe, full_policy(pipe, 2)):
        assert pipe(**FAMILIES["sd"].arguments(steps=2)).images.shape == (1, 4, 16, 16)


# From the hub


def test_a_folder_needs_no_hub(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    assert pipeline_from_configs(str(sd)).config._name_or_path == str(sd)


@pytest.fixture
def hub(sd: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is asked of the hub, which answers everything with one folder."""
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(sd)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_an_id_is_downloaded_and_recorded(hub: dict[str, Any]) -> None:
    pipe = pipeline_from_configs("somebody/some-model")
    assert hub["repository"] == pipe.config._name_or_path == "somebody/some-model"


def test_of_an_id_no_weights_are_downloaded(hub: dict[str, Any]) -> None:
    pipeline_from_configs("somebody/some-model")
    small = [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/merges.txt",
        "tokenizer_2/spiece.model",
        "tokenizer/chat_template.jinja",
    ]
    large = [
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/model.safetensors.index.json",
        "flax_model.msgpack",
        "vae/model.onnx",
        "sd.ckpt",
        "pipeline.py",
    ]

    def matches(file: str, patterns: list[str]) -> bool:
        return any(fnmatch(file, pattern) for pattern in patterns)

    asked = [file for file in (*small, *large) if matches(file, hub["allow_patterns"])]
    assert [file for file in asked if not matches(file, hub["ignore_patterns"])] == small


def test_an_id_that_the_hub_does_not_give_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> str:
        raise OSError("401 Client Error.\n\nMore of it")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert "somebody/some-model" in (message := refused("somebody/some-model")) and "401 Client Error" in message


def test_an_id_of_another_format_is_named(hub: dict[str, Any], sd: Path) -> None:
    (sd / "model_index.json").unlink()
    assert refused("somebody/some-model").startswith("somebody/some-model: holds no model_index.json")


# What cannot be used


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"{tmp_path}: holds no model_index.json")


def test_what_is_neither_folder_nor_id_is_named() -> None:
    assert refused("/no/such/folder").startswith("/no/such/folder: neither a folder nor")


@pytest.mark.parametrize("wanted", ["NoSuchPipeline", "DDIMScheduler", None, ["my_pipeline", "MyPipeline"]])
def test_an_unknown_pipeline_class_is_named(sd: Path, wanted: Any) -> None:
    change_index(sd, _class_name=wanted)
    assert f"its pipeline class {wanted!r} is not one of diffusers" in refused(sd)


def test_a_component_of_another_library_is_named(sd: Path) -> None:
    change_index(sd, unet=["my_models", "MyUNet"])
    assert "its unet is a MyUNet of my_models, which is neither diffusers nor transformers" in refused(sd)


@pytest.mark.parametrize("library", ["diffusers", "transformers", "stable_diffusion"])
def test_a_component_of_an_unknown_class_is_named(sd: Path, library: str) -> None:
    change_index(sd, unet=[library, "MyUNet"])
    assert f"its unet is a MyUNet, which the installed {library} does not have" in refused(sd)


def test_an_index_without_a_component_is_named(sd: Path) -> None:
    file = sd / "model_index.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "unet"}))
    assert "its model_index.json names no unet" in refused(sd)


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("model_index.json", "model_index.json"),
        ("unet", "unet/config.json"),
        ("text_encoder", "text_encoder/config.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
    ],
)
def test_an_unreadable_config_is_named(sd: Path, part: str, file: str) -> None:
    (sd / file).write_text("{ cut off")
    assert f"its {part} cannot be read" in refused(sd)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_missing_config_is_named(sd: Path, part: str) -> None:
    (sd / part / "config.json").unlink()
    assert f"holds no config of its {part}" in refused(sd)


def test_a_missing_component_is_not_looked_for_on_the_hub(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(sd / "tokenizer")
    monkeypatch.chdir(sd.parent)
    assert "holds no config of its tokenizer" in refused(sd.name)


def test_a_config_without_sense_is_named(sd: Path) -> None:
    file = sd / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"down_block_types": ["NoSuchBlock"] * 3}))
    assert "its unet cannot be made of its config" in refused(sd)
