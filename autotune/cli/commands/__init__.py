"""The commands and their options, a module each. They check what they are given and then import what they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autotune.cli.commands.compare import compare
from autotune.cli.commands.dashboard import dashboard
from autotune.cli.commands.describe import describe
from autotune.cli.commands.export import export
from autotune.cli.commands.generate import generate
from autotune.cli.commands.models import models
from autotune.cli.commands.price import price
from autotune.cli.commands.profile import profile
from autotune.cli.commands.report import report
from autotune.cli.commands.schema import schema
from autotune.cli.commands.tune import tune
from autotune.cli.commands.worker import worker

COMMANDS: tuple[Callable[..., Any], ...] = (
    tune,
    generate,
    compare,
    price,
    profile,
    models,
    schema,
    describe,
    export,
    report,
    dashboard,
    worker,
)
"""In the order in which ``--help`` lists them."""
