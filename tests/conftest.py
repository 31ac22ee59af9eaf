"""Tests run in parallel processes: one thread each, and no network."""

from __future__ import annotations

import os
import tempfile

# Before torch is imported anywhere; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing of what is measured or counted elsewhere may decide a test, nor stay behind; the folder goes with the process.
_CACHE = tempfile.TemporaryDirectory(prefix="postdiff-tests-")
os.environ["POSTDIFF_CACHE"] = _CACHE.name
