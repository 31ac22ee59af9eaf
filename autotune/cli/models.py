"""Which pipeline ``--model`` means: known before torch is loaded, loaded when everything else is right."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autotune.core.errors import InputError, PolicyError, did_you_mean, reason_of
from autotune.models.shipped import DEMO_NAMES, demo_pipeline, shipped_folder, shipped_name
from autotune.pipelines.card import ModelCard, read_card

if TYPE_CHECKING:
    from autotune.cost.profile import Profile
    from autotune.policy import ModelInfo

_INDEX = "model_index.json"

DType = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ModelSource:
    """A pipeline by name. ``folder`` is None for an id on the Hugging Face Hub."""

    name: str
    folder: Path | None

    @staticmethod
    def find(model: str) -> ModelSource:
        """The shipped model, the folder or the hub id that ``model`` names.

        Raises:
            InputError: it is none of them.
        """
        shipped = shipped_folder(model)
        if shipped is not None:
            return ModelSource(model, shipped)
        from autotune.policy.loading import is_hub_id

        folder = Path(model)
        if (folder / _INDEX).is_file():
            return ModelSource(model, folder)
        if folder.exists():
            raise InputError(f"--model {model}: holds no {_INDEX}; give the folder of a pipeline in diffusers format")
        if not is_hub_id(model):
            raise InputError(
                f"--model {model}: neither a shipped model, a folder nor a Hugging Face Hub id (user/repo)"
                f"{did_you_mean(model, DEMO_NAMES)}"
            )
        return ModelSource(model, None)

    @property
    def card(self) -> ModelCard:
        """What the model's card says; nothing where there is none, or the model is on the hub.

        Raises:
            InputError: the card cannot be used.
        """
        return ModelCard() if self.folder is None else read_card(self.folder)

    @property
    def depicts_prompts(self) -> bool:
        """Whether its pictures depict prompts, as far as files tell without torch.

        Pipelines that read text have a tokenizer. Of a model on the hub its index is fetched to see that; where it
        cannot be had, most models do.
        """
        index = _read_hub_index(self.name) if self.folder is None else _read_json(self.folder / _INDEX)
        return index is None or any(name.startswith("tokenizer") for name in index)

    def check_policy(self, made_for: ModelInfo | None) -> None:
        """Refuse a policy that was made for another model, as far as files tell without torch.

        A card may record the model's fingerprints; of models without one the classes are known.
        :func:`autotune.apply_policy` makes the full comparison in any case.

        Raises:
            PolicyError: one sentence that names the difference.
        """
        if made_for is None:
            return
        for name, found in self._facts().items():
            expected = getattr(made_for, name)
            if expected != found:
                raise PolicyError(
                    f"the policy was made for another model: its {name.replace('_', ' ')} is {expected}, that of"
                    f" {self.name} is {found}; name its model with --model"
                )

    def check_profile(self, profile: Profile, batch: int | None) -> None:
        """Refuse a hardware profile of another model or batch, as far as files tell without torch.

        Raises:
            ProfileError: one sentence that names the difference.
        """
        from autotune.cost.profile import ProfileError

        if batch is not None:
            profile.of_batch(batch)
        for name, found in self._facts().items():
            profiled = getattr(profile.model, name, found)
            if profiled != found:
                raise ProfileError(
                    f"the profile of {profile.device.name} is of another model: its {name.replace('_', ' ')} is"
                    f" {profiled}, that of {self.name} is {found}; profile {self.name} with 'postdiff profile'"
                )

    def _facts(self) -> dict[str, str | None]:
        """What a policy records of its model, by field, as far as files tell."""
        if self.folder is None:
            return {}
        index = _read_json(self.folder / _INDEX)
        denoiser = index.get("unet") or index.get("transformer") or (None, None)
        facts = {
            "pipeline": index.get("_class_name"),
            "denoiser": denoiser[1],
            "scheduler": index.get("scheduler", (None, None))[1],
        }
        recorded = self.card.model
        if recorded is not None:
            facts |= {name: value for name, value in recorded if name.endswith("_fingerprint")}
        return facts

    def load(self, device: str = "auto", dtype: DType = "auto", *, config_only: bool = False) -> Any:
        """The diffusers pipeline, silent, on its device.

        Args:
            config_only: random weights; of the model only its configs are read, or downloaded.
            device: ``auto`` is the GPU if there is one, else the CPU.
            dtype: ``auto`` is float16 on a GPU and float32 on the CPU.

        Raises:
            InputError: the device is missing, or the pipeline cannot be loaded.
        """
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = device.partition(":")[0]
        present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not present[kind]:
            raise InputError(f"--device {device}: this machine offers none to torch; use --device cpu")
        torch_dtype = getattr(torch, dtype if dtype != "auto" else "float32" if kind == "cpu" else "float16")
        _silence_libraries()
        if config_only:
            return self._from_configs(device, torch_dtype)
        pipe = self._load(torch_dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device, torch_dtype)

    def weightless_pipeline(self, dtype: DType = "auto") -> Any:
        """The diffusers pipeline without weights, which takes no memory and can be priced but not run.

        Args:
            dtype: ``auto`` is float32.

        Raises:
            InputError: its configs cannot be read.
        """
        import torch

        _silence_libraries()
        return self._from_configs("meta", getattr(torch, "float32" if dtype == "auto" else dtype))

    def _from_configs(self, device: str, dtype: Any) -> Any:
        from autotune.cost.weightless import pipeline_from_configs

        pipe = pipeline_from_configs(self.folder or self.name, device=device, dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _load(self, dtype: Any) -> Any:
        shipped = None if self.folder is None else shipped_name(self.folder)
        if shipped is not None:
            # As deployment loads it, to the last bit.
            return demo_pipeline(shipped)
        from diffusers import DiffusionPipeline

        try:
            return DiffusionPipeline.from_pretrained(self.folder or self.name, torch_dtype=dtype)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--model {self.name}: cannot be loaded ({reason_of(error)}); check name and files"
            ) from error


def devices_here(named: Sequence[str]) -> tuple[str, ...]:
    """``named``, or where that is empty every GPU, if this machine has them all.

    Raises:
        InputError: it lacks one of them.
    """
    import torch

    count = torch.cuda.device_count()
    if not named:
        if not count:
            raise InputError("--devices all: this machine offers torch no GPU; name devices, such as cpu,cpu")
        return tuple(f"cuda:{number}" for number in range(count))
    for each in named:
        kind, _, number = each.partition(":")
        if kind == "cuda" and int(number or 0) >= count:
            gpus = "no GPU" if not count else f"{count} GPU{'s' * (count > 1)}, cuda:0 to cuda:{count - 1}"
            raise InputError(f"--devices {','.join(named)}: there is no {each}; this machine offers torch {gpus}")
    return tuple(named)


def _silence_libraries() -> None:
    """No progress bars and no notes to programmers while models load: they would drown what the user asked for."""
    import diffusers
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")


def _read_hub_index(repository: str) -> dict[str, Any] | None:
    """What a model on the hub consists of; None where that cannot be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return _read_json(Path(hf_hub_download(repository, _INDEX)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); download the model again") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds no JSON object; download the model again")
    return document
