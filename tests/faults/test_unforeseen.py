"""A fault nobody foresaw, at every place of a search: one sentence, a traceback in the log, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from torch import Tensor

import autotune.evaluation.judges
from autotune.cli import FAILED, NOBODY_READS, run
from autotune.cli.models import ModelSource
from autotune.core.cache_folder import cache_folder
from autotune.evaluation.timing import Timing
from autotune.policy import read_policy
from autotune.study.trials import FAILURE, sqlite_url
from autotune.workflows.progress import Progress
from tests.support.fake_search import HELD_OUT, PROMPTS, tiny_pipeline

# Not "from autotune.workflows import tune", which is the function.
finish = import_module("autotune.workflows.finish")
last_round = import_module("autotune.workflows.last_round")

STEPS, TRIALS = 4, 7


class PixelScorer:
    """Features of a picture are a projection of its pixels, and of a prompt one of its letters."""

    def image_features(self, images: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(images.float(), 16).flatten(1) / 255
        directions = torch.randn(small.shape[1], 8, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(small @ directions, dim=1)

    def text_features(self, prompts: list[str]) -> Tensor:
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(len(prompt))) for prompt in prompts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@dataclass(frozen=True)
class Search:
    """A search of a tiny pipeline in ``home``, by the command line in this process."""

    pipe: Any
    scorer: PixelScorer
    home: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self) -> tuple[int, str]:
        """The exit code, and what the terminal shows of errors."""
        self.capsys.readouterr()
        options = {
            "--model": self.home / "model", "--prompts": self.home / "prompts.txt",
            "--reference": self.home / "reference", "--scorer": "pixels", "--weight-clip": 0, "--steps": STEPS,
            "--guidance-scale": 1, "--images": 8, "--held-out-images": 8, "--trials": TRIALS,
            "--timeout": "10m", "--device": "cpu", "--out": self.folder,
        }  # fmt: skip
        code = run(["tune", "--quiet", *(str(word) for pair in options.items() for word in pair)])
        return code, self.capsys.readouterr().err

    @property
    def folder(self) -> Path:
        return self.home / "run"

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        url = sqlite_url(self.folder / "study.db")
        return [
            t
            for name in optuna.get_all_study_names(url)
            for t in optuna.load_study(study_name=name, storage=url).trials
        ]

    @property
    def found(self) -> list[Any]:
        """What its last round found and exported, but for times and the numbers of trials."""
        finalists = json.loads((self.folder / "finalists.json").read_text())
        contenders = [{name: each[name] for name in ("id", "policy", "quality")} for each in finalists["contenders"]]
        return [contenders, finalists["difference"], read_policy(self.folder / "policy.json").key]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, prompts, and pictures to resemble, which are its own."""
    home = tmp_path_factory.mktemp("material")
    pipe = tiny_pipeline()
    pipe.save_pretrained(home / "model")
    (home / "prompts.txt").write_text("\n".join((*PROMPTS, *HELD_OUT)))
    (home / "reference").mkdir()
    generators = [torch.Generator().manual_seed(10**6 + number) for number in range(16)]
    pictures = pipe((HELD_OUT + PROMPTS)[:16], generator=generators, num_inference_steps=STEPS, guidance_scale=1).images
    for number, picture in enumerate(pictures):
        picture.save(home / "reference" / f"{number}.png")
    return home


@pytest.fixture
def search(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Search:
    for each in material.iterdir():
        (tmp_path / each.name).symlink_to(each)
    pipe, scorer = tiny_pipeline(), PixelScorer()
    monkeypatch.setattr(ModelSource, "load", lambda *_: pipe)
    monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: scorer)
    # Nothing is decided by times, which take some to measure.
    monkeypatch.setattr(last_round, "time_policies", lambda run, full, others: [Timing(1, 1) for _ in (full, *others)])
    # Of the cache counted FLOPs may stay, which take time; the reference is to be made anew.
    shutil.rmtree(cache_folder() / "references", ignore_errors=True)
    return Search(pipe, scorer, tmp_path, capsys)


class Whole:
    """The same search undisturbed, made by the first test that asks."""

    folder: Path | None = None
    found: list[Any]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole()


@pytest.fixture
def whole(search: Search, kept: Whole, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    if kept.folder is None:
        code, errors = search()
        assert code in (0, 3) and not errors
        kept.found = search.found
        kept.folder = tmp_path_factory.mktemp("whole") / "run"
        shutil.move(search.folder, kept.folder)
        shutil.rmtree(cache_folder() / "references")
    return kept


Patch = pytest.MonkeyPatch
Break = Callable[[Search, Patch, Exception], None]


def breaking(error: Exception) -> Callable[..., Any]:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error

    return broken


def always(target: Callable[[Search], Any], name: str) -> Break:
    """An attribute, of what ``target`` finds, that raises whenever it is called."""
    return lambda search, patch, error: patch.setattr(target(search), name, breaking(error))


def from_trial(number: int, target: Callable[[Search], Any], name: str, *, once: bool = False) -> Break:
    """The same from a trial on, or on the first call in it alone."""

    def break_it(search: Search, patch: Patch, error: Exception) -> None:
        begun: list[int] = []
        candidate, original = Progress.candidate, getattr(target(search), name)

        def begin(progress: Progress, trial: int, pictures: int) -> None:
            begun.append(trial)
            candidate(progress, trial, pictures)

        def maybe(*args: Any, **kwargs: Any) -> Any:
            if begun and begun[-1] >= number:
                if once:
                    begun.append(-1)
                raise error
            return original(*args, **kwargs)

        patch.setattr(Progress, "candidate", begin)
        patch.setattr(target(search), name, maybe)

    return break_it


@dataclass(frozen=True)
class Place:
    """Where something breaks, with which error, and what is said."""

    broken: Break
    error: Exception
    said: str


def text_encoder(search: Search) -> Any:
    return search.pipe.text_encoder


def unet(search: Search) -> Any:
    return search.pipe.unet


def vae(search: Search) -> Any:
    return search.pipe.vae


def scorer(search: Search) -> Any:
    return search.scorer


def end(search: Search) -> Any:
    return finish


def command(search: Search) -> Any:
    return import_module("autotune.cli.tune")


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 3 MiB free.")

PLACES = {
    "network": Place(always(scorer, "image_features"), KeyError("head"), "KeyError while loading the scorer: 'head'; "),
    "text encoder": Place(
        always(text_encoder, "forward"),
        ValueError("  bad \t shape\nof a tensor"),
        "ValueError in the full run on tuning prompts: bad shape; ",
    ),
    "first candidate": Place(from_trial(0, unet, "forward"), AssertionError(), "AssertionError in trial 0; "),
    "later candidate": Place(from_trial(5, unet, "forward"), RuntimeError("mat1"), "RuntimeError in trial 5: mat1; "),
    "once": Place(from_trial(4, unet, "forward", once=True), RuntimeError("ECC"), "RuntimeError in trial 4: ECC; "),
    "decoder": Place(
        from_trial(3, vae, "decode"),
        NO_MEMORY,
        "out of memory in trial 3 (CUDA out of memory. Tried to allocate 2.00 GiB); give a smaller --batch-size and ",
    ),
    "scorer": Place(from_trial(2, scorer, "image_features"), MemoryError(), "out of memory in trial 2 (MemoryError); "),
    "storage": Place(
        from_trial(4, lambda search: RDBStorage, "set_trial_user_attr"), TypeError("row"), "TypeError in trial 4: row; "
    ),
}
LATE = {
    "last round": Place(
        always(lambda search: last_round, "judge"), OSError(5, "I/O"), "OSError in the last round: [Errno 5] I/O; "
    ),
    "time": Place(
        always(lambda search: last_round, "time_policies"),
        ZeroDivisionError(),
        "ZeroDivisionError while measuring time; ",
    ),
    "export": Place(always(end, "exported"), IndexError("5"), "IndexError in the export of policy.json: 5; "),
    "pictures": Place(always(end, "keep_gallery"), EOFError(), "EOFError in the pictures to look at; "),
    "comparison picture": Place(
        always(command, "_save_comparison"), ValueError("size"), "ValueError in the comparison picture: size; "
    ),
    "report": Place(always(command, "write_report"), LookupError(), "LookupError in the report; "),
    "dashboard": Place(
        always(command, "publish"), RuntimeError("note"), "RuntimeError while publishing to the dashboard: note; "
    ),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_it_is_said_in_a_sentence_and_the_same_command_goes_on(place: Place, search: Search, whole: Whole) -> None:
    breaks_and_goes_on(place, search, whole)


@pytest.mark.parametrize("place", LATE.values(), ids=LATE)
def test_once_the_candidates_are_done(place: Place, search: Search, whole: Whole) -> None:
    assert whole.folder is not None
    shutil.copytree(whole.folder, search.folder)
    (search.folder / "policy.json").unlink()
    breaks_and_goes_on(place, search, whole)


def breaks_and_goes_on(place: Place, search: Search, whole: Whole) -> None:
    with pytest.MonkeyPatch.context() as patch:
        place.broken(search, patch, place.error)
        code, errors = search()
    assert code == FAILED
    (line,) = (line for line in errors.splitlines() if line.startswith("postdiff: "))
    assert "Traceback" not in errors and 'File "' not in errors
    log = search.folder / "log.txt"
    assert line.removeprefix("postdiff: ").startswith(place.said)
    assert line.endswith(f"; its traceback is in {log}, repeat the same command to go on")
    kept = log.read_text()
    assert "Traceback (most recent call last)" in kept
    assert re.search(rf"^([\w.]+\.)?{type(place.error).__name__}\b", kept, re.MULTILINE)
    if (search.folder / "study.db").exists():
        assert TrialState.RUNNING not in {trial.state for trial in search.trials}

    code, errors = search()
    assert code in (0, 3) and not errors
    assert search.found == whole.found
    assert not [trial for trial in search.trials if FAILURE in trial.user_attrs]


def test_a_terminal_that_is_gone_ends_the_search_quietly_and_the_same_command_goes_on(
    search: Search, whole: Whole
) -> None:
    def gone(*args: Any, **kwargs: Any) -> None:
        """As rich when the progress cannot be written any more."""
        try:
            raise BrokenPipeError(32, "Broken pipe")
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "candidate", gone)
        code, errors = search()
    assert (code, errors) == (NOBODY_READS, "")
    assert TrialState.RUNNING not in {trial.state for trial in search.trials}
    assert search()[0] in (0, 3) and search.found == whole.found
