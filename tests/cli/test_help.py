"""What ``--help`` prints, of every command: short, by topic, nothing cut and nothing swallowed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.main import get_command

from autotune.cli import run
from autotune.cli.app import app
from autotune.options import CompareOptions, TuneOptions
from autotune.options.declare import Topic, declared

from .conftest import Finished

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
# Lines at most at 80 and at 120 columns.
MOST = {"tune": (90, 60), "compare": (60, 50)}
OTHERS = (40, 30)
# Upper-case, and as short as a word.
METAVAR = re.compile(r"[A-Z]{1,6}(\|[A-Z]{1,6}(\.json)?)?")

Page = Callable[[str, int], str]


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Page:
    """What a command's ``--help`` prints at a width."""

    def printed(command: str, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        assert run([command, "--help"]) == 0
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 120])
def test_a_page_is_short_and_fits(command: str, width: int, page: Page) -> None:
    lines = page(command, width).splitlines()
    assert len(lines) <= MOST.get(command, OTHERS)[width == 120]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("command", COMMANDS)
def test_names_and_sentences_are_whole_and_values_are_short(command: str, page: Page) -> None:
    text = page(command, 80)
    # What turns an option off stands beside the second line of its sentence.
    words = " ".join(re.sub(r"(?m)^--no-\S+", "", text).split())
    assert "…" not in text and "<" not in text
    for parameter in COMMANDS[command].params:
        assert " ".join(parameter.help.split()) in words
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.metavar]
            assert METAVAR.fullmatch(parameter.metavar)
        for name in names:
            (line,) = (line for line in text.splitlines() if line.startswith(f"{name} ") or line == name)
            value = re.match(re.escape(name) + r" (\S+)  ", line)
            assert value is None or METAVAR.fullmatch(value[1]), line


@pytest.mark.parametrize("command", COMMANDS)
def test_choices_are_in_the_sentence(command: str) -> None:
    for parameter in COMMANDS[command].params:
        described = parameter.display_type(None).strip("<>")
        if "|" in described:
            assert all(choice in f"{parameter.help} {parameter.default}" for choice in described.split("|"))


@pytest.mark.parametrize(("command", "declaration"), [("tune", TuneOptions), ("compare", CompareOptions)])
def test_every_option_has_a_topic_and_a_default(command: str, declaration: type[Any], page: Page) -> None:
    parameters = {each.name: each for each in COMMANDS[command].params}
    offered = {each.name: each for each in declared(declaration) if each.flag is not None}
    assert offered.keys() < parameters.keys()
    assert {name: parameters[name].rich_help_panel for name in offered} == {
        name: each.option.topic for name, each in offered.items()
    }
    assert {each.rich_help_panel for each in parameters.values()} <= set(Topic)
    head, *panels = re.split(r"(?m)^(\S.*?) ─+$", page(command, 120))
    titles = panels[::2]
    assert "--" not in head
    assert titles == [topic.format(command=command) for topic in Topic if topic.format(command=command) in titles]
    assert len(titles) == {"tune": 7, "compare": 5}[command]
    blocks = [block for panel in panels[1::2] for block in re.split(r"(?m)^(?=--(?!no-))", panel) if block.strip()]
    without = [block.split()[0] for block in blocks if "Default: " not in block and "Required." not in block]
    flags = [each.opts[0] for each in parameters.values() if each.is_flag and not each.secondary_opts]
    assert without == [name for name in without if name in flags]


def test_the_first_panel_has_what_most_people_need(page: Page) -> None:
    first = page("tune", 80).split("What to tune")[0]
    assert re.findall(r"(?m)^--(\S+)", first) == ["model", "budget", "prompts", "timeout", "out"]


def test_brackets_are_no_markup(page: Page) -> None:
    assert "a table [knobs] as for --space" in " ".join(page("tune", 80).split())


def test_the_page_comes_at_once(postdiff: Callable[..., Finished]) -> None:
    assert postdiff("tune", "--help").seconds < 3


def test_the_page_needs_no_torch(environment: dict[str, str]) -> None:
    script = (
        "import sys; from autotune.cli import run; run(['tune', '--help']);"
        " sys.exit(bool({'torch', 'optuna', 'numpy'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
    assert process.returncode == 0
