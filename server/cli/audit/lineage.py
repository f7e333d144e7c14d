"""`anamnesis audit lineage`: where a finding comes from, back to the received bytes."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from domain.access import Action
from domain.principal import Principal
from eventlog.log import EventLog
from server.audit.lineage import Lineage, Review, Step
from server.cli.console import record_read
from server.cli.session import with_ledger

FEW = 5
"""Instances that are named one by one, and no more, unless all are asked for."""
PIPED_WIDTH = 240
"""Characters of a line where there is no terminal: a UID and a digest stay whole."""


def lineage(
    finding: Annotated[str, typer.Argument(help="The finding's key: the id of its BodyStructure.")],
    as_of: Annotated[str | None, typer.Option(help="What was known at this position or instant.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Name every instance.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where a finding comes from: bytes, request, segmenter, reviews, datasets. Ends 1 when the digests do not agree.

    Example:

        anamnesis audit lineage 5f0c6a52-6c3e-5f0a-9c1e-2d7a4b1f8e11
    """
    from server.audit.inquiries import asked_position
    from server.audit.lineage import lineage as of_finding

    async def work(log: EventLog) -> Lineage:
        found = await of_finding(log, finding, as_of=await asked_position(log, as_of))
        await record_read(log, Action.AUDIT, "audit lineage", subjects=[found.subject_id], things=[f"BodyStructure/{finding}"])
        return found

    found = with_ledger(work)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(_tree(found, len(found.instances) if every else FEW), highlight=False)
    if not found.verified:
        raise typer.Exit(1)


def _tree(found: Lineage, shown: int) -> Tree:
    tree = Tree(f"[bold]{escape(found.seen.structure.label)}[/bold] {found.finding} as of position {found.as_of}")
    agrees = "[green]the same[/green]" if found.verified else f"[red]NOT the same: {found.computed_digest}[/red]"
    _add_steps(tree, "datasets", found.datasets)
    for review in found.reviews:
        _add_review(tree, review)
    made = tree.add(f"seen by {escape(found.run.segmenter)} {escape(found.run.segmenter_version)} in {found.run.duration_s:g} s: {_at(found.indexing)}")
    if found.run.weights_sha256 is not None:
        made.add(f"weights {found.run.weights_sha256}")
    for package, version in sorted(found.run.software.items()):
        made.add(escape(f"{package} {version}"))
    if found.request is not None:
        made.add(f"requested: {_at(found.request)}")
    made.add(f"series digest {found.series_digest}; computed from the instances: {agrees}")
    _add_steps(made, "de-identification of the files", found.deidentifications)
    source = made.add(f"series {found.series_uid} of study {found.study_uid}: {len(found.instances)} instances")
    for one in found.instances[:shown]:
        source.add(f"{one.sop_instance_uid} sha256 {one.sha256}, {one.size} bytes, by {one.door} from {_who(one.principal)}, position {one.position}")
    if len(found.instances) > shown:
        source.add(f"… {len(found.instances) - shown} more: --all")
    for other in found.other_events:
        tree.add(f"also {other.type}: {_at(other)}")
    return tree


def _add_steps(tree: Tree, what: str, steps: list[Step]) -> None:
    node = tree.add(what if steps else f"{what}: none recorded")
    for one in steps:
        node.add(f"{one.type}: {_at(one)}")


def _add_review(tree: Tree, review: Review) -> None:
    older = "" if review.of_this_index else " (of an earlier index)"
    node = tree.add(f"{review.verdict} in review{older}: {_at(review.step)}")
    for signature in review.signatures:
        node.add(f"signed for {signature.meaning} with key {escape(signature.key_id)}: {_at(signature.step)}")


def _at(step: Step) -> str:
    return f"position {step.position}, {step.recorded_at[:19].replace('T', ' ')}, {_who(step.principal)}"


def _who(principal: Principal) -> str:
    return escape(principal.id + (f" for {principal.on_behalf_of}" if principal.on_behalf_of else ""))
