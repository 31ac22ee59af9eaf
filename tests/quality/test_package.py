from __future__ import annotations

import subprocess
import sys

import pytest

import autotune.quality as quality


def test_every_public_name_resolves() -> None:
    assert dir(quality) == sorted(quality.__all__)
    for name in quality.__all__:
        value = getattr(quality, name)
        assert isinstance(value, quality.Weights) or value.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        quality.nothing  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from autotune.quality import general_prompts, load_prompts, split; general_prompts(); "
        "print([m for m in ('torch', 'open_clip', 'scipy', 'numpy', 'torchmetrics') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
