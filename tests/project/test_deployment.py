"""What was tuned is what is deployed: the same pictures, bit for bit, in a process that only loads the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from autotune.cost import parse_budget
from autotune.options import SetupOptions
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import describe_model
from autotune.workflows.setup import Setup, prepare

# Everything a server would write, and nothing of the tuner.
DEPLOYMENT = """
import sys
import torch
from safetensors.torch import save_file
import autotune

policy, pictures, threads, *prompts = sys.argv[1:]
torch.set_num_threads(int(threads))
pipe = autotune.apply_policy(autotune.demo_pipeline(), autotune.load_policy(policy))
generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
images = pipe(prompts, generator=generators, guidance_scale=float(GUIDANCE), output_type="pt").images
save_file({"images": (images * 255).round().to(torch.uint8)}, pictures)
assert "optuna" not in sys.modules
"""


def setup_of_the_shipped_model() -> Setup:
    options = SetupOptions(images=8, held_out_images=8, batch_size=4)
    (setup,) = prepare(None, [parse_budget("40%")], options)
    return setup


def test_a_fresh_process_makes_the_pictures_the_tuner_scored(tmp_path: Path) -> None:
    setup = setup_of_the_shipped_model()
    prompts = setup.held_out.prompts[:4]
    policy = Policy(
        model=describe_model(setup.pipe),
        steps=9,
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        guidance=Guidance(stop_step=7),
        cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 3, 5, 7)),),
    )
    rows = setup.held_out.rows[:4]
    scored, plain = (torch.cat(list(setup.pictures(each, rows, range(4)))) for each in (policy, setup.full))
    assert not torch.equal(scored, plain)

    policy.save(tmp_path / "policy.json")
    script = DEPLOYMENT.replace("GUIDANCE", repr(setup.configuration.guidance_scale))
    pictures = tmp_path / "pictures.safetensors"
    arguments = [str(tmp_path / "policy.json"), str(pictures), str(torch.get_num_threads()), *prompts]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=300)
    assert torch.equal(load_file(pictures)["images"], scored)
