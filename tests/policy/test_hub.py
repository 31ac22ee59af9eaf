"""Policies go to the Hub and come back, through the real client and a server of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.core.errors import InputError
from autotune.policy import Policy
from autotune.policy.hub import card
from tests.support.fake_hub import COMMIT, Hub, running, with_hub
from tests.support.strategies import EXAMPLES

MEASURED = EXAMPLES[1]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


def test_a_policy_comes_back_from_the_hub_as_it_went(hub: Hub, tmp_path: Path) -> None:
    MEASURED.save(tmp_path / "policy.json")
    script = (
        "import sys, autotune\n"
        "policy = autotune.load_policy('policy.json')\n"
        "print(policy.push_to_hub('user/repo', token='secret', private=True))\n"
        "assert autotune.load_policy('user/repo').key == policy.key\n"
        "assert 'torch' not in sys.modules"
    )
    process = with_hub(hub, tmp_path, script)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"{hub.address}/user/repo/commit/{COMMIT}"
    assert (hub.created["name"], hub.created["organization"]) == ("repo", "user")
    assert hub.created.get("private") or hub.created.get("visibility") == "private"
    assert hub.message == f"Policy {MEASURED.id}"
    assert hub.files["policy.json"] == (tmp_path / "policy.json").read_bytes()
    assert hub.files["README.md"].decode() == card(MEASURED, "user/repo")


def test_a_readme_that_is_there_stays(hub: Hub, tmp_path: Path) -> None:
    hub.files["README.md"] = b"written by hand"
    script = (
        "import autotune\n"
        "policy = autotune.Policy(steps=9)\n"
        "policy.push_to_hub('user/repo', token='secret', filename='fast.json', commit_message='Fast')\n"
        "print(autotune.load_policy('user/repo', filename='fast.json').steps)"
    )
    process = with_hub(hub, tmp_path, script)
    assert process.stdout.strip() == "9", process.stderr
    assert set(hub.files) == {"README.md", "fast.json"}
    assert hub.files["README.md"] == b"written by hand"
    assert hub.message == "Fast"


def test_a_token_that_may_not_write_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    script = (
        "import autotune\n"
        "try: autotune.Policy(steps=9).push_to_hub('user/repo', token='another')\n"
        "except autotune.errors.InputError as error: print(error)"
    )
    process = with_hub(hub, tmp_path, script)
    (line,) = process.stdout.splitlines()
    assert line.startswith("user/repo: the Hugging Face Hub did not take the policy (") and "'hf auth login'" in line
    assert not hub.files


@pytest.mark.parametrize(
    ("repository", "filename", "words"),
    [("a repo", "policy.json", "give user/repo"), ("user/repo", "policy.txt", "a policy is a JSON file")],
)
def test_what_no_hub_would_take_is_refused_at_once(repository: str, filename: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Policy(steps=4).push_to_hub(repository, filename=filename)


def test_the_card_says_what_the_records_say_and_how_to_run_it() -> None:
    text = card(MEASURED, "user/repo", "fast.json")
    for words in (
        "StableDiffusionPipeline` at 64x64 pixels",
        "| budget | 40% |",
        "40.0% of the full run, 1,000 GFLOPs",
        "12.5 ms a picture, 1 in a call, on a GPU",
        "200 pictures of 100 prompts",
        "8 plain steps at the same cost | 0.500 (0.250 to 0.750)",
        'autotune.load_policy("user/repo", filename="fast.json")',
    ):
        assert words in text
    bare = card(Policy(steps=4), "user/repo")
    assert 'pipe("a prompt").images[0]' in text
    assert MEASURED.model is not None
    model = MEASURED.model.model_copy(update={"pipeline": "Kandinsky5T2IPipeline"})
    assert 'pipe("a prompt").image[0]' in card(MEASURED.model_copy(update={"model": model}), "user/repo")
    assert "full run" not in bare and 'load_policy("user/repo"))' in bare
