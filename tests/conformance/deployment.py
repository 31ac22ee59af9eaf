"""A family's held-out pictures under a policy, made by plain diffusers here or in a process that knows nothing of tests."""

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
from autotune.policy import Policy
from autotune.workflows.setup import SEEDS_APART, choose
from tests.support.folders import EXAMPLES, Brought

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
images = pipe(**call, output_type="pt").images
save_file({"images": (images.float().clamp(0, 1) * 255).round().to(torch.uint8)}, asked["out"])
assert "optuna" not in sys.modules
"""


def deployed(brought: Brought, policy: Policy) -> Tensor:
    """The pictures (n, 3, H, W) uint8, made in this process."""
    asked = _request(brought)
    pipe = autotune.apply_policy(DiffusionPipeline.from_pretrained(brought.model), policy)
    pipe.set_progress_bar_config(disable=True)
    call = asked["call"] | {name: list(map(Image.open, files)) for name, files in asked["pictures"].items()}
    generators = [torch.Generator().manual_seed(seed) for seed in asked["seeds"]]
    images = pipe(**call, generator=generators, output_type="pt").images
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


def deployed_elsewhere(brought: Brought, policy: Path, folder: Path) -> Tensor:
    """The same under a policy's file, by a fresh process."""
    out = folder / "pictures.safetensors"
    asked = _request(brought) | {
        "model": str(brought.model), "policy": str(policy), "out": str(out), "threads": torch.get_num_threads(),
    }  # fmt: skip
    (folder / "asked.json").write_text(json.dumps(asked))
    script = [sys.executable, "-c", _SCRIPT, str(folder / "asked.json")]
    done = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(Path(autotune.__file__).parents[1])}, check=False)
    assert done.returncode == 0
    return load_file(out)["images"]


def _request(brought: Brought) -> dict[str, Any]:
    """The call for the held-out pictures, as JSON can hold it."""
    family = brought.family
    held_out = choose([row["prompt"] for row in brought.rows[EXAMPLES:]], EXAMPLES, SEEDS_APART)
    call = family.arguments(batch=EXAMPLES, prompt=list(held_out.prompts))
    for name in ("num_inference_steps", "generator", "output_type"):
        del call[name]
    return {"call": call, "pictures": {}, "seeds": held_out.seeds}
