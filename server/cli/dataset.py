"""`anamnesis dataset`: make, freeze, split and compare datasets at a server, from this machine or from another one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from anamnesis.client import Client
from anamnesis.client.errors import NotFound, QuestionRefused
from anamnesis.client.graphql import as_of_input, ask, condition_input
from anamnesis.client.language import parse
from domain.dataset import Purpose
from server.cli.cohort.asking import (
    AsJson,
    AsOf,
    Ca,
    LevelAsked,
    QueryFile,
    Saved,
    Server,
    TokenFile,
    Where,
    cohort_of,
    connected,
    place,
)
from server.cli.cohort.text import bar
from server.cli.dataset_export import export

app = typer.Typer(help="Datasets: cohorts frozen in versions, split without leakage, that leave on their terms alone.", no_args_is_help=True)
app.command()(export)

PAGE = 500
Dataset = Annotated[str, typer.Argument(help="Its id or its title, as `anamnesis dataset list` shows them.")]
Version = Annotated[int | None, typer.Option("--version", help="Unset: the latest.", min=1)]
Uses = Annotated[list[Purpose] | None, typer.Option("--use", help="What it may be exported for; several times.")]
License = Annotated[str, typer.Option(help="An SPDX license expression: CC-BY-4.0, LicenseRef-….")]
LicenseFile = Annotated[Path | None, typer.Option(help="File with a license in words.", exists=True, dir_okay=False)]
Note = Annotated[str, typer.Option("--note", help="What it is meant for, in words.")]
Consents = Annotated[bool, typer.Option("--consents", help="Each subject has to have an active FHIR Consent that permits, and none that denies.")]
Consent = Annotated[str | None, typer.Option(help="In place of --consents: a condition that each subject has to meet whenever it is exported.")]

_VERSION = """version atPosition frozenAt frozenBy level query cohortId cohortVersion membersSha256 subjects studies series instances bytes
  split { seed byHand stratifiedBy parts { name share subjects } kept leftOut assignmentSha256 position }"""
_DATASET = "datasetId projectId title description license licenseText intendedUses useNote consent"


@app.command("list")
def list_(as_json: AsJson = False, server: Server = None, token_file: TokenFile = None, ca: Ca = None) -> None:
    """List the datasets of your projects.

    Examples:

        anamnesis dataset list

        anamnesis dataset list --json
    """
    with connected(server, token_file, ca) as client:
        found = _ask(client, f"{{ datasets {{ {_DATASET} version {{ {_VERSION} }} }} }}")["datasets"]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table(_whole("dataset"), "title", "project", "version", "subjects", "series", "license")
    for one in found:
        latest = one["version"] or {}
        table.add_row(
            one["datasetId"], escape(one["title"]), one["projectId"], *(_number(latest.get(name)) for name in ("version", "subjects", "series")), one["license"]
        )  # fmt: skip
    Console().print(table)


@app.command()
def create(
    project: Annotated[str, typer.Argument(help="The project that it is in (`anamnesis project list`).")],
    title: Annotated[str, typer.Argument(help="In words.")],
    description: Annotated[str, typer.Option(help="In words.")] = "",
    license: License = "",
    license_file: LicenseFile = None,
    use: Uses = None,
    note: Note = "",
    consents: Consents = False,
    consent: Consent = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make a dataset, and print its id. It holds nothing until it is frozen.

    Example:

        anamnesis dataset create liver "Livers, portal-venous" --license CC-BY-4.0 --use research --consents
    """
    terms = _terms(license, license_file, use, note, consents, consent)
    document = (
        "mutation ($projectId: String!, $title: String!, $description: String!, $terms: TermsInput) {"
        f" createDataset(projectId: $projectId, title: $title, description: $description, terms: $terms) {{ dataset {{ {_DATASET} }} }} }}"
    )
    with connected(server, token_file, ca) as client:
        variables = {"projectId": project, "title": title, "description": description, "terms": terms}
        made = _ask(client, document, variables, is_safe=False)["createDataset"]["dataset"]
    typer.echo(json.dumps(made, ensure_ascii=False) if as_json else made["datasetId"])


@app.command()
def terms(
    dataset: Dataset,
    license: License = "",
    license_file: LicenseFile = None,
    use: Uses = None,
    note: Note = "",
    consents: Consents = False,
    consent: Consent = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Set the terms on which a dataset may leave, in place of those that stand.

    Example:

        anamnesis dataset terms "Livers, portal-venous" --license CC-BY-4.0 --use research --use education --consents
    """
    given = _terms(license, license_file, use, note, consents, consent)
    document = (
        "mutation ($datasetId: String!, $terms: TermsInput!) { setDatasetTerms(datasetId: $datasetId, terms: $terms)"
        f" {{ dataset {{ {_DATASET} }} }} }}"
    )
    with connected(server, token_file, ca) as client:
        done = _ask(client, document, {"datasetId": _id(client, dataset), "terms": given}, is_safe=False)["setDatasetTerms"]["dataset"]
    if as_json:
        typer.echo(json.dumps(done, ensure_ascii=False))
    else:
        _show_terms(done)


@app.command()
def freeze(
    dataset: Dataset,
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Freeze what a condition finds as the next version. Where it finds what the latest one holds, that one stands.

    Examples:

        anamnesis dataset freeze "Livers, portal-venous" --where "Modality = CT and has finding (label = liver and whole = true)"

        anamnesis dataset freeze "Livers, portal-venous" --saved "Whole livers" --as-of 2026-11-01
    """
    document = (
        "mutation ($datasetId: String!, $of: QuestionInput, $cohortId: String, $asOf: AsOfInput) {"
        f" freezeDataset(datasetId: $datasetId, of: $of, cohortId: $cohortId, asOf: $asOf) {{ position version {{ {_VERSION} }} }} }}"
    )
    with connected(server, token_file, ca) as client:
        variables: dict[str, Any] = {"datasetId": _id(client, dataset), "asOf": as_of_input(place(as_of))}
        if saved is not None and where is None and query is None:
            variables["cohortId"] = client.cohort(saved).cohort_id
        else:
            question = cohort_of(client, where, query, saved, level, None).question
            condition = None if question.where is None else condition_input(question.where.to_json())
            variables["of"] = {"level": question.level.upper(), "where": condition}
        with Console(stderr=True).status("Freezing: every series and instance is listed and hashed"):
            done = _ask(client, document, variables, is_safe=False)["freezeDataset"]
    if as_json:
        typer.echo(json.dumps({**done["version"], "position": done["position"]}, ensure_ascii=False))
        return
    if done["position"] is None:
        typer.echo("Nothing new: this version holds just that.")
    _show_version(done["version"])


@app.command()
def show(
    dataset: Dataset, as_json: AsJson = False, server: Server = None, token_file: TokenFile = None, ca: Ca = None
) -> None:
    """Show a dataset's terms, versions and splits.

    Examples:

        anamnesis dataset show "Livers, portal-venous"

        anamnesis dataset show "Livers, portal-venous" --json
    """
    document = f"query ($datasetId: String!) {{ dataset(datasetId: $datasetId) {{ {_DATASET} versions {{ {_VERSION} }} }} }}"
    with connected(server, token_file, ca) as client:
        found = _ask(client, document, {"datasetId": _id(client, dataset)})["dataset"]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    _show_terms(found)
    for version in found["versions"]:
        _show_version(version)


@app.command()
def members(
    dataset: Dataset,
    version: Version = None,
    limit: Annotated[int | None, typer.Option(help="At most so many series; unset: 20, or all of them with --json.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with every instance.")] = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """List what a version holds, without who was erased since.

    Examples:

        anamnesis dataset members "Livers, portal-venous" --limit 100

        anamnesis dataset members "Livers, portal-venous" --version 1 --json
    """
    instances = "instances { sopInstanceUid sha256 bytes }" if as_json else ""
    document = (
        "query ($datasetId: String!, $version: Int, $first: Int!, $after: String) { dataset(datasetId: $datasetId) { version(version: $version) {"
        " members(first: $first, after: $after) { pageInfo { hasNextPage endCursor }"
        f" nodes {{ seriesUid studyUid subjectId modality seriesDigest split instanceCount bytes {instances} }} }} }} }} }}"
    )
    left = limit if limit is not None or as_json else 20
    table = Table(_whole("series"), "modality", _whole("subject"), "part", "instances", "bytes")
    with connected(server, token_file, ca) as client:
        variables: dict[str, Any] = {"datasetId": _id(client, dataset), "version": version, "after": None}
        most = PAGE if not as_json else 20
        while left is None or left > 0:
            variables["first"] = most if left is None else min(left, most)
            found = _ask(client, document, variables)["dataset"]["version"]
            if found is None:
                raise NotFound(f"the dataset has no version {version}" if version else "the dataset is not frozen yet")
            for one in found["members"]["nodes"]:
                if as_json:
                    typer.echo(json.dumps(one))
                else:
                    table.add_row(
                        one["seriesUid"], one["modality"], one["subjectId"], one["split"] or "", _number(one["instanceCount"]), _number(one["bytes"])
                    )
            left = None if left is None else left - len(found["members"]["nodes"])
            if not found["members"]["pageInfo"]["hasNextPage"]:
                break
            variables["after"] = found["members"]["pageInfo"]["endCursor"]
    if not as_json:
        Console().print(table)


@app.command()
def split(
    dataset: Dataset,
    version: Version = None,
    part: Annotated[list[str] | None, typer.Option(help="A part and its share, as train=0.7; several times. Unset: train 0.7, validation 0.15, test 0.15.")] = None,
    seed: Annotated[str, typer.Option(help="What the lot is drawn with.")] = "0",
    stratify: Annotated[list[str] | None, typer.Option(help="A field in which the parts are to be alike: sex, or age_years:40,60 for a number; several times.")] = None,
    by_hand: Annotated[Path | None, typer.Option(help="CSV file with the columns subject_id and part; who is not in it is in no part.", exists=True, dir_okay=False)] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="A subject that is to be in no part; several times.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Put each subject of a version into a part. Who was in a part of an earlier version stays there; numbers of one person are one.

    Examples:

        anamnesis dataset split "Livers, portal-venous" --seed 7 --stratify sex --stratify age_years:40,60

        anamnesis dataset split "Livers, portal-venous" --part train=0.8 --part test=0.2 --by-hand parts.csv
    """  # fmt: skip
    document = (
        "mutation ($datasetId: String!, $version: Int, $parts: [PartInput!], $seed: String!, $stratifyBy: [String!], $byHand: [AssignedInput!],"
        " $leaveOut: [String!]) { splitDataset(datasetId: $datasetId, version: $version, parts: $parts, seed: $seed, stratifyBy: $stratifyBy,"
        f" byHand: $byHand, leaveOut: $leaveOut) {{ position version {{ {_VERSION} }} }} }}"
    )
    variables: dict[str, Any] = {
        "version": version,
        "parts": [_part(one) for one in part] if part else None,
        "seed": seed,
        "stratifyBy": stratify,
        "byHand": _assigned(by_hand) if by_hand is not None else None,
        "leaveOut": leave_out,
    }
    with connected(server, token_file, ca) as client:
        variables["datasetId"] = _id(client, dataset)
        done = _ask(client, document, variables, is_safe=False)["splitDataset"]
    if as_json:
        typer.echo(json.dumps({**done["version"]["split"], "version": done["version"]["version"]}))
        return
    if done["position"] is None:
        typer.echo("Nothing new: the version was split just so.")
    _show_version(done["version"])


@app.command()
def drift(
    dataset: Dataset,
    before: Annotated[int, typer.Argument(help="The earlier version.", min=1)],
    after: Annotated[int, typer.Argument(help="The later version.", min=1)],
    field: Annotated[list[str] | None, typer.Option(help="A field whose values are compared; several times. Unset: the usual ones.")] = None,
    limit: Annotated[int, typer.Option(help="Name at most so many series of each kind.", min=0, max=100)] = 20,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Show what entered, left or changed from one version to another, by which events, and how fields shifted.

    Examples:

        anamnesis dataset drift "Livers, portal-venous" 1 2

        anamnesis dataset drift "Livers, portal-venous" 1 2 --field Manufacturer --field SliceThickness --json
    """
    series = "{ seriesUid studyUid subjectId instancesBefore instancesAfter reasons { position type recordedAt principalId } }"
    document = (
        "query ($datasetId: String!, $before: Int!, $after: Int!, $fields: [String!], $first: Int!) { dataset(datasetId: $datasetId) {"
        " drift(before: $before, after: $after, fields: $fields, first: $first) { since until questionChanged sameCount enteredCount leftCount"
        f" changedCount entered {series} left {series} changed {series} shifts {{ field psi values {{ value before after }} }} }} }} }}"
    )
    with connected(server, token_file, ca) as client:
        variables = {"datasetId": _id(client, dataset), "before": before, "after": after, "fields": field, "first": limit}
        found = _ask(client, document, variables)["dataset"]["drift"]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    question = "; they are of different questions" if found["questionChanged"] else ""
    title = f"version {before} (position {found['since']}) to {after} (position {found['until']}){question}"
    table = Table("", _whole("series"), "instances", "events", title=title, caption=f"{found['sameCount']:,} series are the same")
    for kind in ("entered", "left", "changed"):
        for one in found[kind]:
            events = ", ".join(f"{reason['type']} ({reason['position']})" for reason in one["reasons"])
            table.add_row(kind, one["seriesUid"], f"{one['instancesBefore']} → {one['instancesAfter']}", events)
        hidden = found[f"{kind}Count"] - len(found[kind])
        if hidden:
            table.add_row(kind, f"… {hidden:,} more", "", "")
    Console().print(table)
    for shift in found["shifts"]:
        _show_shift(shift, before, after)


@app.command()
def recover(
    dataset: Dataset,
    version: Annotated[int, typer.Argument(help="The version whose list is lost.", min=1)],
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make the list of a version's members again, where the archive has lost it: the same bytes, or an error.

    Example:

        anamnesis dataset recover "Livers, portal-venous" 1
    """
    document = "mutation ($datasetId: String!, $version: Int!) { recoverDatasetList(datasetId: $datasetId, version: $version) { version { membersSha256 } } }"
    with connected(server, token_file, ca) as client:
        done = _ask(client, document, {"datasetId": _id(client, dataset), "version": version}, is_safe=False)
    typer.echo(f"{done['recoverDatasetList']['version']['membersSha256']} is in the archive.")


def _ask(client: Client, document: str, variables: dict[str, Any] | None = None, *, is_safe: bool = True) -> dict[str, Any]:
    return client._transport.run(ask(document, variables or {}, is_safe=is_safe))


def _id(client: Client, dataset: str) -> str:
    """Of a dataset by its id or its title. Raises NotFound."""
    found = _ask(client, "{ datasets { datasetId title } }")["datasets"]
    ids = [one["datasetId"] for one in found if dataset in (one["datasetId"], one["title"])]
    if len(ids) != 1:
        several = f"{len(ids)} datasets have this title: name one by its id" if ids else "your projects have no such dataset"
        raise NotFound(f"{several} (`anamnesis dataset list` shows them)")
    return str(ids[0])


def _terms(license: str, license_file: Path | None, uses: list[Purpose] | None, note: str, consents: bool, consent: str | None) -> dict[str, Any]:
    if consents and consent:
        raise QuestionRefused("--consents and --consent are two ways to say it: give one of them")
    return {
        "license": license,
        "licenseText": license_file.read_text(encoding="utf-8") if license_file else "",
        "intendedUses": [use.name for use in uses or ()],
        "useNote": note,
        "consents": consents,
        "consent": condition_input(parse(consent).to_json()) if consent else None,
    }


def _part(text: str) -> dict[str, Any]:
    name, _, share = text.partition("=")
    try:
        return {"name": name, "share": float(share)}
    except ValueError:
        raise QuestionRefused(f"{text} is no part with a share: write it as train=0.7") from None


def _assigned(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"subject_id", "part"} <= rows[0].keys():
        raise QuestionRefused(f"{file.name} has no columns subject_id and part")
    return [{"subjectId": row["subject_id"], "part": row["part"]} for row in rows]


def _show_terms(one: dict[str, Any]) -> None:
    table = Table("", "", show_header=False, title=escape(one["title"]))
    words = {"license": "license", "licenseText": "license in words", "useNote": "meant for", "consent": "consent", "description": "description"}
    table.add_row("id", one["datasetId"])
    table.add_row("project", one["projectId"])
    table.add_row("uses", ", ".join(Purpose[use].value for use in one["intendedUses"]) or "none: it cannot be exported")
    for name, shown in words.items():
        if one[name]:
            table.add_row(shown, escape(one[name]))
    Console().print(table)


def _show_version(version: dict[str, Any]) -> None:
    table = Table("", "", show_header=False, title=f"version {version['version']}, as of position {version['atPosition']}")
    for name in ("subjects", "studies", "series", "instances", "bytes"):
        table.add_row(name, _number(version[name]))
    table.add_row("frozen", f"{version['frozenAt'][:19]} by {version['frozenBy']}")
    table.add_row("list", version["membersSha256"])
    Console().print(table)
    split = version["split"]
    if split is None:
        return
    alike = f", alike in {', '.join(split['stratifiedBy'])}" if split["stratifiedBy"] else ""
    how = "by hand" if split["byHand"] else f"seed {split['seed']}"
    caption = f"{split['kept']:,} subjects stayed where they were, {split['leftOut']:,} are in no part"
    parts = Table("part", "share", "subjects", "", title=f"split, {how}{escape(alike)}", caption=caption)
    most = max(part["subjects"] for part in split["parts"])
    for part in split["parts"]:
        parts.add_row(part["name"], f"{part['share']:g}", _number(part["subjects"]), bar(part["subjects"], most))
    Console().print(parts)


def _show_shift(shift: dict[str, Any], before: int, after: int) -> None:
    table = Table("value", str(before), "", str(after), "", title=f"{escape(shift['field'])}: PSI {shift['psi']:.3f}")
    values = [one for one in shift["values"] if one["before"] or one["after"]]
    most = [max((one[side] for one in values), default=0) for side in ("before", "after")]
    for one in values:
        table.add_row(escape(one["value"]), _number(one["before"]), bar(one["before"], most[0]), _number(one["after"]), bar(one["after"], most[1]))
    Console().print(table)


def _whole(head: str) -> Column:
    """A column of ids, which are copied: folded where there is no room, and never cut."""
    return Column(head, overflow="fold")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
