"""`anamnesis audit export`: a bundle for an auditor, who can check it without us."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from domain.access import Action
from eventlog.log import EventLog
from server.audit.scope import Scope, of_tag, of_time
from server.cli.console import record_read
from server.cli.session import with_ledger
from server.errors import SettingRefused


def export(
    destination: Annotated[Path, typer.Argument(help="A new folder, or a zip (its name ends in .zip).")],
    study: Annotated[str | None, typer.Option(help="All that is about this study (Study Instance UID).")] = None,
    series: Annotated[str | None, typer.Option(help="All that is about this series (Series Instance UID).")] = None,
    subject: Annotated[str | None, typer.Option(help="All that is about this subject (its pseudonym).")] = None,
    dataset: Annotated[str | None, typer.Option(help="All that is about this dataset.")] = None,
    since: Annotated[str | None, typer.Option(help="All events recorded from this instant on (ISO 8601; UTC unless it says otherwise).")] = None,
    until: Annotated[str | None, typer.Option(help="… up to this instant.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the bundle holds as JSON.")] = False,
) -> None:
    """Write an auditor's bundle: events, proofs, checkpoints, keys, a report, and a program that checks them offline.

    Events that are not about what was asked for are in it as digests alone, and it is proved that none was left out.
    That it was exported is recorded.

    Examples:

        anamnesis audit export study.zip --study 1.2.840.113619.2.1

        anamnesis audit export november --since 2026-11-01 --until 2026-12-01
    """
    from server.audit.export import Exported
    from server.audit.export import export as write
    from server.audit.exposure import subjects_in

    scope = _scope({"study": study, "series": series, "subject": subject, "dataset": dataset}, since, until)
    with Progress(*Progress.get_default_columns()[:3], TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("Writing the bundle", total=None)

        async def work(log: EventLog) -> Exported:
            exported = await write(log, scope, destination, progress=lambda at, size: progress.update(task, completed=at, total=size))
            await record_read(log, Action.EXPORT, "audit export", subjects=await subjects_in(log, scope, exported.size))
            return exported

        exported = with_ledger(work)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(exported))
        return
    typer.echo(
        f"{exported.path}: {exported.whole} events whole, {exported.without_data} without their data, {exported.withheld} as digests,"
        f" of a log of {exported.size}.\nCheck it: anamnesis audit verify {exported.path}"
    )


def _scope(tags: dict[str, str | None], since: str | None, until: str | None) -> Scope:
    given = {kind: value for kind, value in tags.items() if value}
    if len(given) + bool(since or until) != 1:
        raise SettingRefused("name one thing: --study, --series, --subject or --dataset; or a time with --since and --until")
    for kind, value in given.items():
        return of_tag(kind, value)
    return of_time(_instant("--since", since), _instant("--until", until))


def _instant(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingRefused(f"{option} {text} is not an instant: write 2026-11-01 or 2026-11-01T12:00:00+01:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
