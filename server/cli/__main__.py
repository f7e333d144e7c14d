"""`python -m server.cli` is `anamnesis`."""

from server.cli import main

main()
