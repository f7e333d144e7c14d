"""The documentation names every command, every setting and every scope; what it calls a setting is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from server.auth.scopes import SCOPES
from server.cli import build
from server.cli.known_settings import NOT_SETTINGS, settings_classes, variable

DOCS = "\n".join(page.read_text() for page in sorted((Path(__file__).parents[2] / "docs").rglob("*.md")))
SETTINGS = {variable(name) for cls in settings_classes() for name in cls.model_fields}


def commands(command: Any, path: str = "anamnesis") -> Iterator[tuple[str, Any]]:
    """Each command with how it is called."""
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


COMMANDS = list(commands(typer.main.get_command(build())))


def test_every_command_is_documented() -> None:
    assert len(COMMANDS) > 10
    assert [path for path, _ in COMMANDS if path not in DOCS] == []


def test_every_command_has_an_example_in_its_help() -> None:
    assert [path for path, command in COMMANDS if path not in (command.help or "")] == []


def test_every_setting_is_documented() -> None:
    assert sorted(name for name in SETTINGS if f"`{name}`" not in DOCS) == []


def test_no_documented_setting_is_made_up() -> None:
    named = set(re.findall(r"\bANAMNESIS_[A-Z0-9_]+\b", DOCS))
    assert sorted(name for name in named - SETTINGS if not name.startswith(NOT_SETTINGS)) == []


def test_every_scope_is_documented() -> None:
    assert [scope for scope in SCOPES if f"`{scope}`" not in DOCS] == []
