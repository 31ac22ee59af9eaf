"""Names that the command line and the Python interface must agree on."""

from __future__ import annotations

import re


def default_study_name(model: str, budget: str) -> str:
    """The study's name when none is given: the same model and budget give it again, so a repeated call resumes.

    Example:
        >>> default_study_name("emoji-unet", "40%")
        'emoji-unet-40pct'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{model}-{budget.replace('%', 'pct')}").strip("-")
