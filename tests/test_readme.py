"""The README's code runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import autotune
from autotune.policy import Guidance, Policy

ROOT = Path(__file__).parents[1]
SOURCE = Path(autotune.__file__).parents[1]
SNIPPETS = re.findall(
    r"^```python\n(# (?:deploy|policy)\.py\n.*?)^```",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_the_readme_shows_how_to_deploy() -> None:
    assert SNIPPETS, "README.md has no python fence that begins with the line '# deploy.py'"


def test_the_deployment_snippets_are_short_and_run_as_printed(tmp_path: Path) -> None:
    pipe = autotune.demo_pipeline()
    full = autotune.full_policy(pipe)
    policy = Policy(steps=8, guidance=Guidance(stop_step=6), model=full.model)
    for snippet in SNIPPETS:
        for path in re.findall(r"""load_policy\(["'](.+?)["']\)""", snippet):
            policy.save(tmp_path / path)
        assert len(snippet.splitlines()) < 15
        (tmp_path / "deploy.py").write_text(snippet, encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "deploy.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr
