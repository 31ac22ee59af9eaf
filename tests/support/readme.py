"""The READMEs as tests take them: their fenced blocks, the commands in them, and which tests ask for what."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
READMES = (
    README,
    *sorted(file for top in ("autotune", "search_spaces", "studies") for file in (ROOT / top).rglob("README.md")),
)
"""Every README of the repository, the project's own first."""

TEXT = "\n".join(file.read_text(encoding="utf-8") for file in READMES)


@dataclass(frozen=True)
class Block:
    language: str
    content: str

    @property
    def title(self) -> str:
        """The file's name in a first line such as ``# deploy.py``, or the first line."""
        return self.content.splitlines()[0].removeprefix("# ").strip()

    @property
    def commands(self) -> list[str]:
        """Those of a shell block, without comments, those joined by ``&&`` apart."""
        lines = self.content.splitlines() if self.language == "sh" else []
        return [part for line in lines if line.strip() for part in _without_comment(line).split(" && ")]


BLOCKS = tuple(Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


def block(beginning: str) -> str:
    """The content of the one block whose title begins so, or is just that."""
    return _block(beginning).content


def commands() -> list[str]:
    """Every command of the shell blocks, those of the project's README first."""
    return [text for each in BLOCKS for text in each.commands]


def command(beginning: str) -> list[str]:
    """The words of the one command that begins so, or is just that."""
    return shlex.split(_command(beginning))


def printed() -> set[str]:
    """Everything that is to be executed: each command, and the title of each other block."""
    return {text for each in BLOCKS for text in each.commands or [each.title]}


def executed(folder: Path) -> dict[str, list[str]]:
    """What tests below ``folder`` take from here to execute it, each with the names of those tests.

    Their source is read: what counts is a call of ``block`` or ``command`` in the body of a test that pytest collects,
    with a text that is written there, whose result is used.
    """
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for test in _tests(ast.parse(file.read_text(encoding="utf-8"))):
            for call in _used_calls(test):
                for text in _taken(call):
                    found.setdefault(text, []).append(f"{file.name}::{test.name}")
    return found


def _tests(module: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions that pytest collects and does not skip whatever happens."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            if not any(ast.unparse(decorator).startswith("pytest.mark.skip(") for decorator in node.decorator_list):
                yield node


def _used_calls(test: ast.FunctionDef) -> list[ast.Call]:
    dropped = {id(node.value) for node in ast.walk(test) if isinstance(node, ast.Expr)}
    return [node for node in ast.walk(test) if isinstance(node, ast.Call) and id(node) not in dropped]


def _taken(call: ast.Call) -> list[str]:
    """What of ``printed`` a call asks for."""
    match call:
        case ast.Call(func=ast.Name(id="block"), args=[ast.Constant(value=str(beginning))]):
            taken = _block(beginning)
            return taken.commands or [taken.title]
        case ast.Call(func=ast.Name(id="command"), args=[ast.Constant(value=str(beginning))]):
            return [_command(beginning)]
    return []


def _block(beginning: str) -> Block:
    found = [each for each in BLOCKS if each.title.startswith(beginning)]
    (only,) = [each for each in found if each.title == beginning] or found
    return only


def _command(beginning: str) -> str:
    found = [each for each in commands() if each.startswith(beginning)]
    (only,) = [each for each in found if each == beginning] or found
    return only


def _without_comment(line: str) -> str:
    return line.partition("   #")[0].rstrip()
