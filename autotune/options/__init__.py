"""What a user may ask for, each option declared once: the fields of frozen dataclasses, with their help and bounds.

Four readers share a declaration: the command line, study files, the keywords of Python's functions and the manifest
that a study keeps for its workers. Nothing here loads torch.
"""

from __future__ import annotations

from autotune.options.comparing import CompareOptions
from autotune.options.declare import OptionError
from autotune.options.judging import JudgeOptions
from autotune.options.pictures import PictureOptions
from autotune.options.tuning import SetupOptions, TuneOptions

__all__ = ["CompareOptions", "JudgeOptions", "OptionError", "PictureOptions", "SetupOptions", "TuneOptions"]
