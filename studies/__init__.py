"""Experiments behind every number the project prints, and the recipes of its shipped models."""
