"""Whose fault it is that a candidate cannot be evaluated: its own, or one that every candidate would meet."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable

import torch

from autotune.core.errors import summary_of
from autotune.evaluation.evaluator import Evaluator
from autotune.policy import Policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.pruning import LEAST
from autotune.study.heartbeat import concerns_all

_LOG = logging.getLogger(__name__)


class CandidateError(Exception):
    """Why a candidate cannot be evaluated, where the fault is its own. Its trial fails, and the search goes on."""


class Diagnosis:
    """Tells faults of single candidates from all others by an experiment.

    Args:
        evaluator: Makes and judges pictures.
        prefixes: What calls began with, which takes memory.
    """

    def __init__(self, evaluator: Evaluator, prefixes: PrefixCache | None) -> None:
        self._evaluator = evaluator
        self._prefixes = prefixes

    def check(self, error: Exception, again: Callable[[], object]) -> None:
        """Find out whether an error that came up with a candidate is its own fault; returns where it is not.

        It is where the full run works and what failed fails ``again``. One that is gone the second
        time is not: evaluated on another day, the candidate will score what it always would have.

        Args:
            error: What came up.
            again: Does what failed.

        Raises:
            CandidateError: The fault is the candidate's own.
        """
        if concerns_all(error):
            return
        # The frames of the error keep the candidate's tensors alive, and memory may be what was lacking.
        traceback.clear_frames(error.__traceback__)
        if self._prefixes is not None:
            self._prefixes.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _LOG.debug("a candidate failed", exc_info=error)
        try:
            self.evaluate(self._evaluator.full_policy)
        except Exception:
            _LOG.debug("the full run fails as well", exc_info=True)
            return
        try:
            again()
        except Exception:
            raise CandidateError(summary_of(error)) from error

    def evaluate(self, policy: Policy, beyond: int = 0) -> None:
        """Make and judge the first pictures of a policy, more than ``beyond``."""
        partial = self._evaluator.probe(policy, beyond)
        made = len(partial.features)
        if made >= LEAST or made == len(self._evaluator.rows):
            self._evaluator.objective.head(made).score(partial)
