"""The README as tests take it: its fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    language: str
    content: str

    @property
    def title(self) -> str:
        """The file's name in a first line such as ``# deploy.py``, or the first line."""
        return self.content.splitlines()[0].removeprefix("# ")


BLOCKS = tuple(Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


def block(title: str) -> str:
    """The content of the one block of that title."""
    (found,) = (each.content for each in BLOCKS if each.title == title)
    return found


def commands(language: str = "sh") -> list[str]:
    """Every command of the shell blocks, without comments, those joined by ``&&`` apart."""
    lines = [line for each in BLOCKS if each.language == language for line in each.content.splitlines() if line.strip()]
    return [part for line in lines for part in _without_comment(line).split(" && ")]


def command(beginning: str) -> list[str]:
    """The words of the one command that begins so."""
    (found,) = (each for each in commands() if each.startswith(beginning))
    return shlex.split(found)


def _without_comment(line: str) -> str:
    return line.partition("   #")[0].rstrip()
