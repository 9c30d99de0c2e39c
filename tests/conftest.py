"""Fixtures of every test; the functions themselves live in tests/support.py and import from here or from there."""

from tests.support import data_path, require_root, require_tool

__all__ = ["data_path", "require_root", "require_tool"]
