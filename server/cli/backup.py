"""`anamnesis backup`: all that cannot be built again, to another place, sealed; while the server runs."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from typer.core import TyperGroup

from server.cli.progress import showing_progress
from server.settings import ServerSettings

WHERE = "A folder, or what fsspec can write (s3://bucket/prefix)."


class _Group(TyperGroup):
    """`anamnesis backup DEST` is short for `anamnesis backup make DEST`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["make", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=_Group,
    help="Make, list and verify backups. `anamnesis backup DEST` is short for `anamnesis backup make DEST`.",
    no_args_is_help=True,
)


@app.command()
def make(
    dest: Annotated[str, typer.Argument(help=WHERE, metavar="DEST")],
    keep: Annotated[int | None, typer.Option(min=1, help="Keep only this many backups; without it all.")] = None,
    in_spite_of_missing: Annotated[bool, typer.Option("--in-spite-of-missing", help="Make a backup although the archive lacks instances that the log names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Back up log, keys, archive, spool and refused files, consistent at one position. What is there already is not copied again.

    The key-encryption key is not in it: without that key a backup is of no use to anybody.

    Examples:

        anamnesis backup /mnt/backup/anamnesis

        anamnesis backup make s3://bucket/anamnesis --keep 30 --json
    """
    from server.backup.making import back_up

    with showing_progress(as_json) as progress:
        made = asyncio.run(back_up(ServerSettings(), dest, keep=keep, in_spite_of_missing=in_spite_of_missing, progress=progress))
    if as_json:
        typer.echo(msgspec.json.encode(made).decode("utf-8"))
        return
    table = Table("position", "events new", "objects new", "objects", "other files", "written", "removed", "seconds")
    table.add_row(
        str(made.position), str(made.events_new), str(made.objects_new), str(made.objects), str(made.files),
        decimal(made.bytes_written), str(made.removed), f"{made.seconds:.1f}",
    )  # fmt: skip
    Console().print(table)
    if made.missing:
        typer.echo(f"{made.missing} instances that the log names are missing in this backup, as they are in the archive.")
    typer.echo(f"The key-encryption key {made.kek_id} is not in the backup. Keep it elsewhere: both together open everything, and nothing opens without it.")


@app.command("list")
def list_(
    dest: Annotated[str, typer.Argument(help=WHERE, metavar="DEST")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the backups at a destination, oldest first. Needs no key.

    Example:

        anamnesis backup list /mnt/backup/anamnesis
    """
    from server.backup.destination import Destination
    from server.backup.manifest import read_all

    manifests = read_all(Destination(dest))
    if as_json:
        shown = [
            {"position": m.position, "created": m.created, "site": m.site, "objects": m.objects, "objects_bytes": m.objects_bytes,
             "checkpoint_size": m.checkpoint_size, "revision": m.revision, "kek_id": m.kek_id, "missing": len(m.missing)}
            for m in manifests
        ]  # fmt: skip
        typer.echo(msgspec.json.encode(shown).decode("utf-8"))
        return
    table = Table("position", "made", "site", "objects", "bytes", "checkpoint", "key")
    for m in manifests:
        size = "none" if m.checkpoint_size is None else str(m.checkpoint_size)
        table.add_row(str(m.position), f"{m.created:%Y-%m-%d %H:%M:%S}", m.site, str(m.objects), decimal(m.objects_bytes), size, m.kek_id)
    Console().print(table)


@app.command()
def verify(
    dest: Annotated[str, typer.Argument(help=WHERE, metavar="DEST")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every file of a destination, without a database, and name what is damaged (then exit code 1). Needs the key-encryption key.

    Example:

        anamnesis backup verify /mnt/backup/anamnesis
    """
    from eventlog.kek import load_keys
    from server.backup.verifying import verify as verify_backups

    with showing_progress(as_json) as progress:
        verified = verify_backups(dest, load_keys(ServerSettings()), progress)
    if as_json:
        typer.echo(msgspec.json.encode(verified).decode("utf-8"))
    else:
        for problem in verified.problems:
            typer.echo(problem)
        checkpoint = f"the checkpoint at {verified.checkpoint_size} agrees" if verified.checkpoint_size is not None else "there is no checkpoint yet"
        typer.echo(
            f"{verified.backups} backups up to position {verified.position}: {verified.events} events, {verified.objects} objects,"
            f" {decimal(verified.bytes)} read. "
            + (f"{len(verified.problems)} problems." if verified.problems else f"All is well; {checkpoint}.")
        )
    raise typer.Exit(1 if verified.problems else 0)
