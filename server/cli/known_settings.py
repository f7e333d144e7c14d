"""Every setting of this installation: the server's, and those that other packages name in the entry point group
anamnesis.settings (the workers'). So a variable that is spelled wrongly is noticed rather than ignored."""

from __future__ import annotations

import importlib.metadata
import os

from pydantic_settings import BaseSettings

from server.settings import ServerSettings

PREFIX = "ANAMNESIS_"
NOT_SETTINGS = ("ANAMNESIS_TEST_", "ANAMNESIS_BENCH_", "ANAMNESIS_TOKEN", "ANAMNESIS_SERVER")
"""What only tests and benchmarks read, the token of whoever acts at the command line, and the server that the client asks."""


def settings_classes() -> list[type[BaseSettings]]:
    """The server's first."""
    others = importlib.metadata.entry_points(group="anamnesis.settings")
    return [ServerSettings, *(entry_point.load() for entry_point in others)]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables() -> list[str]:
    """Variables that look like settings and are none."""
    known = {variable(name) for cls in settings_classes() for name in cls.model_fields}
    return sorted(v for v in os.environ if v.upper().startswith(PREFIX) and v.upper() not in known and not v.startswith(NOT_SETTINGS))
