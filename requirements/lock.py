"""Pins and hashes every package for Python 3.11 to 3.13, and names no registry. Run by `make lock`.

base.txt is what Anamnesis runs on, dev.txt that and what checks and tests need, segmentation.txt what TotalSegmentator adds to
it, bench.txt what some benchmarks are measured against. All come from one resolution, so that they never disagree. torch and its CUDA packages are left out: which build fits
depends on the machine, so the Makefile installs torch by itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent / "pyproject.toml"
LEFT_OUT = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")


def compile_entries(*options: str) -> list[str]:
    """The lock file's entries, one a package, each with its hashes."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as output:
        subprocess.run(
            [
                sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
                "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links",
                *options, "--output-file", output.name, str(PROJECT),
            ],
            check=True,
        )  # fmt: skip
        entries = re.split(r"\n(?=\S)", Path(output.name).read_text().strip())
    return [entry for entry in entries if not LEFT_OUT.match(entry)]


def write(name: str, entries: list[str]) -> None:
    (HERE / name).write_text("\n".join(entries) + "\n")


def without_hashes(entry: str) -> str:
    return entry.split(" \\\n", 1)[0]


constraints, overrides = HERE / "constraints.txt", HERE / "overrides.txt"
everything = compile_entries("--extra=dev", "--extra=segmentation", "--extra=bench", f"--constraint={constraints}", f"--override={overrides}")
with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
    pins.write("\n".join(without_hashes(entry) for entry in everything))
    pins.flush()
    base = compile_entries(f"--constraint={pins.name}")
    dev = compile_entries("--extra=dev", f"--constraint={pins.name}")
    bench = compile_entries("--extra=dev", "--extra=bench", f"--constraint={pins.name}")

write("base.txt", base)
write("dev.txt", dev)
write("bench.txt", [entry for entry in bench if entry not in set(dev)])
write("segmentation.txt", [entry for entry in everything if entry not in {*dev, *bench}])
