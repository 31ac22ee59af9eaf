"""A search whose quality is a formula, for the tests of this room."""

from __future__ import annotations

from tests.support.fake_search import arguments, batched, continued, explained, pictures, pipe, whole

__all__ = ["arguments", "batched", "continued", "explained", "pictures", "pipe", "whole"]
