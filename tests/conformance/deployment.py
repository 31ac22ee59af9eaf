"""A family's held-out pictures under a policy, made by plain diffusers: in this process, or in a fresh one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import autotune
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.examples import SEEDS_APART, choose
from autotune.evaluation.input_pictures import Picture
from autotune.evaluation.inputs import is_picture, read_rows, with_pictures
from autotune.policy import Policy
from tests.conformance.tuner import EXAMPLES
from tests.support.builders import FAMILIES, returned
from tests.support.folders import Brought

# What a server would write.
_SCRIPT = """
import json, sys
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
import autotune

asked = json.load(open(sys.argv[1]))
torch.set_num_threads(asked["threads"])
pipe = DiffusionPipeline.from_pretrained(asked["model"])
pipe = autotune.apply_policy(pipe, autotune.load_policy(asked["policy"]))
call = asked["call"] | {name: [Image.open(file) for file in files] for name, files in asked["pictures"].items()}
call["generator"] = [torch.Generator().manual_seed(seed) for seed in asked["seeds"]]
images = torch.as_tensor(pipe(**call).images)
save_file({"images": (images.float().clamp(0, 1) * 255).round().to(torch.uint8).contiguous()}, asked["out"])
assert "optuna" not in sys.modules
"""


def deployed(brought: Brought, policy: Policy, pipe: Any = None) -> Tensor:
    """The pictures (n, 3, H, W) uint8, made in this process; by ``pipe`` where it cannot be loaded."""
    asked = _request(brought)
    pipe = autotune.apply_policy(pipe or DiffusionPipeline.from_pretrained(brought.model), policy)
    pipe.set_progress_bar_config(disable=True)
    call = asked["call"] | {name: list(map(Image.open, files)) for name, files in asked["pictures"].items()}
    generators = [torch.Generator().manual_seed(seed) for seed in asked["seeds"]]
    images = torch.as_tensor(returned(pipe(**call, generator=generators)))
    return _channels_first((images.float().clamp(0, 1) * 255).round().to(torch.uint8))


def deployed_elsewhere(brought: Brought, policy: Path, folder: Path) -> Tensor:
    """The same under a policy's file, by a fresh process."""
    out = folder / "pictures.safetensors"
    asked = _request(brought) | {
        "model": str(brought.model), "policy": str(policy), "out": str(out), "threads": torch.get_num_threads(),
    }  # fmt: skip
    (folder / "asked.json").write_text(json.dumps(asked))
    script = [sys.executable, "-c", _SCRIPT, str(folder / "asked.json")]
    subprocess.run(script, env=os.environ | {"PYTHONPATH": str(Path(autotune.__file__).parents[1])}, check=True)
    return _channels_first(load_file(out)["images"])


def _request(brought: Brought) -> dict[str, Any]:
    """The call for the held-out pictures, in the tuner's order and with its seeds, as JSON can hold it."""
    family, (height, width) = brought.family, brought.size
    taken = accepted(FAMILIES[family.name].make(), read_rows(brought.rows) if brought.rows else None)
    examples = choose(taken.split()[1].rows, EXAMPLES, SEEDS_APART)
    call = family.arguments(EXAMPLES, height, width, **{"output_type": "pt"} | dict(family.extra))
    for name in (
        "num_inference_steps",
        "generator",
        *((family.scale[0],) if family.guider else ()),
        *call.keys() & {"image", "mask_image", "ip_adapter_image"},
    ):
        del call[name]
    pictures: dict[str, list[str]] = {}
    for name, shared in taken.call.items():
        if is_picture(name):
            pictures[name] = with_pictures(shared, lambda picture: str(picture.path))
    for name in examples.rows[0].arguments:
        values = [row.arguments[name] for row in examples.rows]
        if isinstance(values[0], Picture):
            pictures[name] = [str(picture.path) for picture in values]
        else:
            call["class_labels" if name == "class_label" else name] = values
    return {"call": call, "pictures": pictures, "seeds": examples.seeds}


def _channels_first(images: Tensor) -> Tensor:
    """Pipelines of pixels return arrays."""
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2)
