"""What the extra ``tune`` brings, and the one sentence where it is missing.

Deployment needs none of it: loading, applying, pricing, describing and sharing policies work without.
"""

from __future__ import annotations

from importlib.util import find_spec

from autotune.core.errors import InputError

TUNER = (
    "cmaes",
    "jinja2",
    "open_clip",
    "optuna",
    "optuna_dashboard",
    "plotly",
    "scipy",
    "sqlalchemy",
    "tenacity",
    "torchmetrics",
)
"""The packages that ``postdiff[tune]`` requires, by the names they are imported under."""

_NAMED = 3


class MissingExtra(InputError, ImportError):
    """What was asked for needs the extra ``tune``, which is not installed."""


def require_tuner(what: str) -> None:
    """Refuse ``what``, a command for example, where a package of the tuner is missing; none is imported.

    Raises:
        MissingExtra: one sentence that names ``what`` and the extra.
    """
    missing = [name for name in TUNER if find_spec(name) is None]
    if missing:
        raise _missing_extra(what, missing)


def missing_extra(what: str, error: ModuleNotFoundError) -> MissingExtra | None:
    """What to raise instead of ``error`` if it is a package of the tuner that ``what`` did not find."""
    package = (error.name or "").partition(".")[0]
    return _missing_extra(what, [package]) if package in TUNER else None


def _missing_extra(what: str, missing: list[str]) -> MissingExtra:
    named = ", ".join(missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return MissingExtra(
        f"{what} needs packages that are not installed ({named}{more}); run pip install 'postdiff[tune]'"
    )
