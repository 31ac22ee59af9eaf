"""Examples in docstrings run as they are printed, and every public name has one."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from huggingface_hub import HfApi
from torch import Tensor

import autotune
import search_spaces
from autotune.evaluation.generation import PictureMaker
from autotune.workflows.setup import Setup
from tests.support.fake_hub import Hub, running
from tests.support.fake_search import DIMENSIONS, PROMPTS, FakePictures, ReadingScorer, of_prompts, tiny_pipeline

SOURCE = Path(autotune.__file__).parents[1]
MODULES = sorted(
    ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for package in (autotune, search_spaces)
    for file in Path(next(iter(package.__path__))).rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)
# What README and other programs rely on.
CONTRACT = {*autotune.__all__} - {"__version__", "errors"} | {
    *("id", "save", "to_dict", "push_to_hub"),  # of a policy
    *("relative", "flops", "macs_conv_linear", "latency_ms", "cache_bytes"),  # of a cost
    *("policy", "finalists"),  # of what tune returns
    *("space_for", "sample", "from_trial", "knobs"),
}


class LargerReadingScorer(ReadingScorer):
    """Of pictures that are made larger by repeating them: structural similarity needs more than eight pixels."""

    def image_features(self, images: Tensor) -> Tensor:
        return super().image_features(images[..., :DIMENSIONS])


def larger(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    return (batch.repeat(1, 1, 2, 2) for batch in batches)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What examples take as given: a pipeline and prompts of the reader's own."""
    return {
        "autotune": autotune,
        "optuna": optuna,
        "pipe": tiny_pipeline(),
        "prompts": PROMPTS,
        "scorer": LargerReadingScorer(),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub of this process is ours."""
    with running() as server:
        monkeypatch.setattr("huggingface_hub.HfApi", partial(HfApi, endpoint=server.address))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(
    name: str, names: dict[str, Any], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith(("autotune.search.", "autotune.study.", "autotune.workflows.")):
        # Pictures by a formula: everything else of a search or a comparison is real.
        for maker in (Setup, PictureMaker):
            monkeypatch.setattr(
                maker, "pictures", lambda _, *args, **kwargs: larger(of_prompts(FakePictures(), *args, **kwargs))
            )
    module = import_module(name)
    for test in examples(module):
        test.globs = {**vars(module), **names}
        said: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append, clear_globs=False)
        assert not said, "".join(said)


def test_every_public_name_is_in_an_example_that_runs() -> None:
    found = [example for name in MODULES for test in examples(import_module(name)) for example in test.examples]
    assert not [example.source for example in found if doctest.SKIP in example.options]
    sources = "".join(example.source for example in found)
    assert {name for name in CONTRACT if not re.search(rf"\b{name}\b", sources)} == set()
