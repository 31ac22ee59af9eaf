"""A study of ours is an ordinary Optuna study: it opens and is plotted where this package is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from autotune.workflows.tune import TuneResult
from tests.support.readme import block

# Every further plot that Optuna's own documentation begins with.
PLOTS = ("optimization_history", "parallel_coordinate", "slice", "edf", "timeline", "rank")
ABSENT = "import sys; sys.modules.update(autotune=None, search_spaces=None)\n"
CHECKS = f"""
assert study.best_value == min(trial.value for trial in study.trials if trial.value is not None)
assert len(study.trials) >= 12 and study.best_trial.user_attrs["results"]["loss"] == study.best_value
for name in {PLOTS}:
    assert getattr(optuna.visualization, "plot_" + name)(study).data, name
"""


def test_plain_optuna_opens_and_plots_the_study(whole: TuneResult, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "emoji-unet-40pct"
    folder.mkdir(parents=True)
    shutil.copy(whole.run_dir / "study.db", folder)
    script = f"{ABSENT}{block('look.py')}{CHECKS}"
    process = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "importances" in (tmp_path / "importances.html").read_text().lower()
