"""Folders that belong to one process: their names say which, so that others see whether it is gone."""

from __future__ import annotations

import os

import psutil


def own_name() -> str:
    """This process's folder name (numbers of processes are used again, start times are not)."""
    return f"{os.getpid()}-{int(psutil.Process().create_time() * 1000)}"


def is_alive(folder_name: str) -> bool:
    """Whether the process that made a folder of this name still runs."""
    pid, _, started = folder_name.partition("-")
    try:
        return int(psutil.Process(int(pid)).create_time() * 1000) == int(started)
    except (ValueError, psutil.NoSuchProcess):
        return False
