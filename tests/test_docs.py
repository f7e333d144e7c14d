"""The documentation names what there is: every dependency, command, setting, event type and metric, and nothing else."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import domain
import server.cli
from domain.event import EVENT_TYPES
from server.settings import ServerSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
ROOMS = ("domain", "eventlog", "archive", "projections", "workers", "server")


def section(page: str, title: str) -> str:
    """What stands between a heading and the next one of its level."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_column(text: str) -> list[str]:
    """The first cells of a section's table, without its head and without code marks."""
    cells = [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("|")]
    return cells[2:]


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=~!; ]", requirement, maxsplit=1)[0] for requirement in requirements]


def commands(command: Any, name: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if not children:
        yield name
    else:
        for child_name, child in children.items():
            yield from commands(child, f"{name} {child_name}")


def metrics() -> Iterator[str]:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    first = node.args[0]
                    if node.func.id in {"Counter", "Gauge", "Histogram"} and isinstance(first, ast.Constant):
                        yield str(first.value)


def test_every_dependency_says_why_it_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(first_column(section("dependencies.md", "To run"))) == sorted(names(project["dependencies"]))
    for extra, requirements in project["optional-dependencies"].items():
        assert sorted(first_column(section("dependencies.md", f"Extra: {extra}"))) == sorted(names(requirements)), extra


def test_every_command_is_documented() -> None:
    there = sorted(commands(typer.main.get_command(server.cli.build()), "anamnesis"))
    assert sorted(first_column(section("reference.md", "Commands"))) == there


def test_every_setting_is_documented() -> None:
    fields = {*ServerSettings.model_fields, *WorkerSettings.model_fields}
    assert sorted(first_column(section("reference.md", "Settings"))) == sorted(f"ANAMNESIS_{f.upper()}" for f in fields)


def test_every_event_type_is_documented() -> None:
    for module in pkgutil.iter_modules(domain.__path__):
        importlib.import_module(f"domain.{module.name}")
    ours = [name for name, type_ in EVENT_TYPES.items() if type_.__module__.startswith("domain.")]
    assert sorted(first_column(section("reference.md", "Events"))) == sorted(ours)


def test_every_metric_is_documented() -> None:
    assert sorted(first_column(section("reference.md", "Metrics"))) == sorted(metrics())


@pytest.mark.parametrize("name", ["base.txt", "dev.txt", "segmentation.txt", "build.txt"])
def test_requirements_are_pinned_and_hashed_and_name_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\S)", text.strip()) if not entry.startswith("#")]
    assert entries
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index" not in text
    assert "--extra-index" not in text


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
def test_links_of_the_readme_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
