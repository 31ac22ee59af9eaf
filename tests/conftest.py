"""Tests run in parallel processes: one thread each, and no network."""

from __future__ import annotations

import os

# Before torch is imported anywhere; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
