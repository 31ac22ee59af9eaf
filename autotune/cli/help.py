"""What ``--help`` prints: options by topic, each with its value, what it does and its default in words.

Typer's own page has a column of types that leaves the sentences a quarter of a terminal, cuts long names and takes
brackets for markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from autotune.options.declare import Topic

# So few options are one list, which a reader takes in at a glance.
_FEW = 16
# Longer lines are harder to read.
_WIDEST = 120

# What stands for a value, by what typer calls its type.
_METAVARS = {
    "bool": "",
    "float": "X",
    "float range": "X",
    "int": "N",
    "int range": "N",
    "list[str]": "NAME",
    "path": "FILE",
    "str": "NAME",
}
# The sentence says which.
_CHOICE = "NAME"


def print_help(command: Any, context: Any) -> None:
    """Print the page of a command, or of the program with its commands."""
    console = Console(highlight=False)
    console.width = min(console.width, _WIDEST)
    console.print(
        Text(command.get_usage(context), "bold"), Text(f"\n{' '.join((command.help or '').split())}\n"), sep="\n"
    )
    rows = {title: [_row(each, context) for each in params] for title, params in sections(command, context).items()}
    commands = getattr(command, "commands", {})
    if commands:
        rows["Commands"] = [(Text(name, "bold cyan"), Text(each.help or "")) for name, each in commands.items()]
    width = max(line.cell_len for each in rows.values() for name, _ in each for line in name.split())
    for title, lines in rows.items():
        console.print(Rule(Text(title, "bold"), align="left", style="dim"), _table(lines, width))


def sections(command: Any, context: Any) -> dict[str, list[Any]]:
    """Arguments and options by the heading that they stand under."""
    shown = [each for each in command.get_params(context) if not each.hidden]
    options = [each for each in shown if each.param_type_name == "option"]
    found = {"Arguments": [each for each in shown if each not in options]}
    if len(options) <= _FEW:
        found["Options"] = options
    else:
        for topic in Topic:
            # Typer's own --help has no topic.
            found[topic.format(command=command.name)] = [
                each for each in options if (each.rich_help_panel or Topic.OUTPUT) == topic
            ]
    return {title: each for title, each in found.items() if each}


def _table(lines: Iterable[tuple[Text, Text]], width: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column()
    for line in lines:
        table.add_row(*line)
    return table


def _row(parameter: Any, context: Any) -> tuple[Text, Text]:
    name = Text(", ".join(sorted(parameter.opts, key=len)), "bold cyan")
    if parameter.param_type_name == "argument":
        name = Text(parameter.display_name_raw, "bold cyan")
    elif metavar := _metavar(parameter, context):
        name.append(f" {metavar}", "not bold yellow")
    for other in parameter.secondary_opts:
        name.append(f"\n{other}")
    said = Text(parameter.help or "")
    if default := _default(parameter, context):
        said.append(f" {default}", "dim")
    return name, said


def _metavar(parameter: Any, context: Any) -> str:
    kind = parameter.display_type(context).strip("<>")
    return parameter.metavar or _METAVARS.get(kind, _CHOICE)


def _default(parameter: Any, context: Any) -> str:
    if parameter.required:
        return "Required."
    shown = parameter.show_default
    value = shown if isinstance(shown, str) else parameter.get_default(context, call=False) if shown else None
    # A flag that is off goes without saying, and so does an argument that is optional.
    return "" if value is None or value is False else f"Default: {value}."
