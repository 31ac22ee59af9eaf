"""``postdiff tune --study``: what a file may say, and what is said of one that says something else."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from autotune.cli import run, tune_main
from autotune.cli.packaged_studies import study_files
from autotune.cli.requests import TuneRequest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TuneRequest]:
    """What the command would have run."""
    found: list[TuneRequest] = []

    def take(request: TuneRequest) -> int:
        found.append(request)
        return 0

    monkeypatch.setattr(import_module("autotune.cli.tune"), "run_tune", take)
    return found


def budgets(request: TuneRequest) -> tuple[str, ...]:
    return tuple(map(str, request.budgets))


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def test_options_of_every_kind(asked: list[TuneRequest], study: Callable[[str], str]) -> None:
    file = study(
        """
        budget = ["25%", "40%"]
        guidance-scale = 3
        steps = 12
        sampler = "random"
        early-stopping = false
        quiet = true
        timeout = 90
        judge = ["distance", "error:0.5"]
        error-ceiling = 0.3
        [knobs]
        interval = [1, 3]
        depth = 0
        """
    )
    assert run(["tune", "--study", file]) == 0
    (request,) = asked
    options = request.options
    assert options.judges == ["distance", "error:0.5"] and options.error_ceiling == 0.3
    assert budgets(request) == ("25%", "40%") and options.study_name == "mine-25pct-40pct"
    assert (options.guidance_scale, options.steps, options.timeout) == (3.0, 12, 90.0)
    assert (options.sampler, options.early_stopping, options.quiet) == ("random", False, True)
    assert options.space == {"interval": (1, 3), "depth": (0, 0)}
    # Everything else is as without a file.
    assert (request.source.name, options.images) == ("emoji-unet", 128)


def test_paths_are_relative_to_the_file(
    asked: list[TuneRequest], study: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("a red apple\n")
    (tmp_path / "space.toml").write_text("[knobs]\ninterval = 2\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    monkeypatch.chdir("/")
    assert run(["tune", "--study", study('prompts = "prompts.txt"\nspace = "space.toml"\nout = "run"')]) == 0
    assert run(["tune", "--study", study('model = "model"\nprompts = "general"')]) == 0
    first, second = (request.options for request in asked)
    assert first.prompts == ["a red apple"] and first.space == {"interval": (2, 2)}
    assert first.run_dir == tmp_path / "run"
    assert asked[1].source.folder == tmp_path / "model"
    assert isinstance(second.prompts, list) and len(second.prompts) > 100


def test_the_command_line_wins(asked: list[TuneRequest], study: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("[knobs]\ninterval = 2\n")
    file = study('budget = "25%"\nimages = 64\nearly-stopping = false\n[knobs]\nswitch = [0, 9]')
    more = ["--images", "32", "--early-stopping", "--space", str(tmp_path / "space.toml")]
    assert run(["tune", "--study", file, "--budget", "60%", *more]) == 0
    # Wherever it stands.
    assert run(["tune", "--frontier", "--study", file]) == 0
    assert [budgets(request) for request in asked] == [("60%",), ("20%", "30%", "40%", "50%", "60%", "80%")]
    first, second = (request.options for request in asked)
    assert (first.images, first.early_stopping) == (32, True)
    assert first.space == {"interval": (2, 2)}
    assert second.images == 64 and second.space == {"switch": (0, 9)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("guidance_scale = 3", "did you mean 'guidance-scale'?"),
        ("study = 'other.toml'", "'study' is no option"),
        ("[knob]\ninterval = 2", "did you mean 'knobs'?"),
        ("[knobs]\ninterval = 'x'", "knobs.interval is 'x'"),
        ("[knobs]\n", "changes nothing"),
        ("space = 'a.toml'\n[knobs]\ninterval = 2", "the same thing twice"),
        ("steps = 'many'", "steps is 'many'"),
        ("steps = '12'", "without quotes"),
        ("steps = true", "steps is true"),
        ("steps = 1.5", "steps is 1.5"),
        ("steps = 1", "steps is 1: input should be greater than or equal to 2"),
        ("steps = [12]", "steps is [12]"),
        ("quiet = 1", "give true or false"),
        ("sampler = 'bayes'", "not one of 'tpe'"),
        ("budget = ['40%', true]", "or a list of them"),
        ("budget = '4'", "budget '4' is not understood"),
        ("prompts = 'missing.txt'", "missing.txt"),
        ("steps", "is not TOML"),
    ],
)
def test_what_cannot_be_used_is_named(
    text: str,
    words: str,
    study: Callable[[str], str],
    asked: list[TuneRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = study(text)
    monkeypatch.setattr("sys.argv", ["postdiff-tune", "--study", file])
    with pytest.raises(SystemExit) as ended:
        tune_main()
    assert ended.value.code == 2 and not asked
    (sentence,) = capsys.readouterr().err.splitlines()
    assert words in sentence
    assert "mine.toml" in sentence or "missing.txt" in sentence or "budget" in sentence


def test_a_file_that_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--study", "missing.toml"]) == 2
    assert "missing.toml" in capsys.readouterr().err


def test_a_name_is_a_file_of_the_package_wherever_one_is(
    asked: list[TuneRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [study.name for study in study_files()]
    assert {"sdxl-1024", "emoji-unet"} <= {*names}
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a red apple"}')
    for name in names:
        # Pictures to begin with are the user's.
        own = {"prompts", "inputs", "model"} & tomllib.loads((STUDIES / f"{name}.toml").read_text()).keys()
        rows = ["--inputs", "rows.jsonl"] if own == {"model"} and not name.startswith("emoji") else []
        assert run(["tune", "--study", name, "--budget", "30%", *rows]) == 0
        assert run(["tune", "--study", str(STUDIES / f"{name}.toml"), "--budget", "30%", *rows]) == 0
        by_name, by_path = asked[-2:]
        assert by_name == by_path and by_name.options.study_name == f"{name}-30pct"


def test_what_exists_as_a_file_is_a_file(
    asked: list[TuneRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji-unet").write_text("images = 77")
    assert run(["tune", "--study", "emoji-unet"]) == 0
    assert asked[0].options.images == 77


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ("sdx1-1024", "did you mean 'sdxl-1024', 'sd3-1024' or 'sd15-512'?"),
        ("flux", "did you mean 'flux-dev-1024' or 'flux-schnell-1024' or 'flux2-dev-1024'?"),
        ("nothing-like-it", "valid: emoji-dit, emoji-unet,"),
        ("elsewhere/sdxl-1024.toml", "or --study sdxl-1024, which comes with the package"),
        ("elsewhere/mine.toml", "is no file; give a TOML file"),
        (".", "is no file; give a TOML file"),
    ],
)
def test_a_study_that_is_not_there(study: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--study", study]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"postdiff: --study {study}: ") and words in sentence
    assert ("'postdiff models'" in sentence) == ("/" not in study and study != ".")
