"""`anamnesis audit seal | checkpoint | inclusion | consistency | check`: the log's tree, its checkpoints, and whether they hold."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from eventlog.checking import Checked, Discrepancy, check_log
from eventlog.errors import NoteMalformed
from eventlog.log import EventLog
from eventlog.notes import Checkpoint, open_note, parse_checkpoint
from eventlog.sealer import Sealed
from eventlog.sealer import seal as seal_log
from eventlog.tree import Tree
from server.audit.proving import Consistency, Inclusion, newest, prove_consistency, prove_inclusions
from server.cli.session import with_log
from server.errors import ProofImpossible

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def seal() -> None:
    """Seal everything up to now, and print the checkpoint. A server does so by itself, at least every minute while events come.

    Example:

        anamnesis audit seal
    """
    typer.echo(with_log(seal_log).note, nl=False)


def checkpoint(as_json: AsJson = False) -> None:
    """Print the newest checkpoint: a signed note (C2SP) of how many events there are and of the tree's root.

    Keep it where this site does not reach: from then on, nothing before it can be changed without being found out.

    Examples:

        anamnesis audit checkpoint > checkpoint-2026-11-20.txt

        anamnesis audit check --checkpoint checkpoint-2026-11-20.txt
    """

    async def work(log: EventLog) -> Sealed:
        return await newest(log.pool)

    sealed = with_log(work)
    if not as_json:
        typer.echo(sealed.note, nl=False)
        return
    typer.echo(
        msgspec.json.encode({"size": sealed.size, "root": sealed.root.hex(), "made_at": sealed.made_at.isoformat(), "note": sealed.note})
    )


def inclusion(
    positions: Annotated[list[int], typer.Argument(metavar="POSITION…", help="Positions in the log, from 1 on.")],
    size: Annotated[int | None, typer.Option(help="In the tree of so many events; by default that of the newest checkpoint.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that events are in the log: the path from each to the root (RFC 9162, 2.1.3).

    Examples:

        anamnesis audit inclusion 17

        anamnesis audit inclusion 17 4711 --json
    """

    async def work(log: EventLog) -> list[Inclusion]:
        return await prove_inclusions(log.pool, Tree(log.pool), positions, size)

    proofs = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(proofs))
        return
    for proof in proofs:
        typer.echo(f"position {proof.position} in a tree of {proof.size} events\ndigest {proof.digest}\nleaf   {proof.leaf}")
        for step in proof.path:
            typer.echo(f"path   {step}")


def consistency(
    first: Annotated[str, typer.Argument(help="A number of events, or a file with the checkpoint that you kept.")],
    second: Annotated[str | None, typer.Argument(help="The same; by default the newest checkpoint of this log.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that nothing was changed between two checkpoints (RFC 9162, 2.1.4): the later tree begins as the earlier one.

    With files, their roots are compared with this log's; exit code 1 when two checkpoints do not agree.

    Examples:

        anamnesis audit consistency 1000 2000

        anamnesis audit consistency checkpoint-2026-10.txt checkpoint-2026-11.txt
    """
    earlier, later = _size_or_checkpoint(first), _size_or_checkpoint(second) if second is not None else None

    async def work(log: EventLog) -> tuple[Consistency, list[str]]:
        tree = Tree(log.pool)
        proof = await prove_consistency(log.pool, tree, _size(earlier), _size(later) if later is not None else None)
        disagreeing = [
            f"the checkpoint at size {one.size} states root {_base64(one.root)}, and this log has {_base64(root)}"
            for one in (earlier, later)
            if isinstance(one, Checkpoint) and (root := await tree.root(one.size)) != one.root
        ]
        return proof, disagreeing

    proof, disagreeing = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode({**msgspec.to_builtins(proof), "agree": not disagreeing, "problems": disagreeing}))
    else:
        typer.echo(f"the tree of {proof.second} events begins as that of {proof.first}" if not disagreeing else "They do NOT agree.")
        for step in proof.path:
            typer.echo(f"path   {step}")
    for problem in disagreeing:
        typer.echo(f"WRONG {problem}", err=as_json)
    if disagreeing:
        raise typer.Exit(1)


def check(
    key: Annotated[str | None, typer.Option(help="A verification key of this site that you know from elsewhere.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that you kept elsewhere (a file); can be given several times.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole log: every event against its digest, the digests against the tree, the tree against every checkpoint.

    Reads all of it once, in one snapshot, while the site goes on. Exit code 1 when something is not as it was sealed; each such
    thing is named by position, stream, and what differs.

    Examples:

        anamnesis audit check

        anamnesis audit check --checkpoint checkpoint-2026-10.txt --key "anamnesis/hospital+1f2e3d4c+AT…"
    """
    kept = [path.read_text("utf-8") for path in checkpoint or ()]
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking the log", total=None)

        async def work(log: EventLog) -> Checked:
            return await check_log(
                log, known_key=key, kept=kept, progress=lambda at, head: progress.update(task, completed=at, total=head)
            )

        checked = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode({"holds": checked.holds, **msgspec.to_builtins(checked)}))
    else:
        typer.echo("\n".join(_described(checked)))
    if not checked.holds:
        raise typer.Exit(1)


def _described(checked: Checked) -> list[str]:
    lines = [f"{checked.events} events, {checked.sealed} of them sealed by {checked.checkpoints} checkpoints"]
    if checked.unknown:
        lines.append(f"{checked.unknown} events are of types that this version does not know: their stored digests were compared alone")
    lines += [f"WRONG {_where(one)}{one.what}" for one in checked.discrepancies]
    if checked.found > len(checked.discrepancies):
        lines.append(f"… and {checked.found - len(checked.discrepancies)} more")
    lines.append("It holds: every event is as it was sealed." if checked.holds else "It does NOT hold.")
    return lines


def _where(one: Discrepancy) -> str:
    stream = f", stream {one.stream}" if one.stream else ""
    return f"position {one.position}{stream}: " if one.position is not None else ""


def _size_or_checkpoint(written: str) -> int | Checkpoint:
    if written.isdecimal():
        return int(written)
    path = Path(written)
    if not path.is_file():
        raise ProofImpossible(f"{written} is neither a number of events nor a file with a checkpoint")
    try:
        return parse_checkpoint(open_note(path.read_text("utf-8"), ()).text)
    except (NoteMalformed, UnicodeDecodeError) as error:
        raise ProofImpossible(f"{written} holds no checkpoint: {error}") from None


def _size(one: int | Checkpoint) -> int:
    return one.size if isinstance(one, Checkpoint) else one


def _base64(root: bytes) -> str:
    return base64.b64encode(root).decode("ascii")
