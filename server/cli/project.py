"""`anamnesis project`: the scopes in which tags are said, and cohorts and datasets shared, and who is a member of them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anamnesis.client import Client
from anamnesis.client.graphql import ask
from domain.project import Role
from server.cli.cohort.asking import AsJson, Ca, Server, TokenFile, connected

app = typer.Typer(help="Projects, in which cohorts and datasets are shared with their members.", no_args_is_help=True)

Project = Annotated[str, typer.Argument(help="Its id, as `anamnesis project list` shows it.")]
Principal = Annotated[str, typer.Argument(help="The principal, by its id: token:… as `anamnesis token list` shows it.")]
_PROJECT = "projectId title role members { principalId role }"


@app.command("list")
def list_(as_json: AsJson = False, server: Server = None, token_file: TokenFile = None, ca: Ca = None) -> None:
    """List the projects of which you are a member.

    Examples:

        anamnesis project list

        anamnesis project list --json
    """
    with connected(server, token_file, ca) as client:
        found = _ask(client, f"{{ projects {{ {_PROJECT} }} }}")["projects"]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    table = Table("project", "title", "you are", "members")
    for one in found:
        others = ", ".join(f"{member['principalId']} ({member['role'].lower()})" for member in one["members"])
        table.add_row(one["projectId"], escape(one["title"]), one["role"].lower(), others)
    Console().print(table)


@app.command()
def create(
    project: Annotated[str, typer.Argument(help="Its id, which stays readable for ever: lower-case letters, digits and -.")],
    title: Annotated[str, typer.Option(help="In words.")] = "",
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make a project, which you then own.

    Example:

        anamnesis project create liver --title "Livers of the portal-venous phase"
    """
    document = "mutation ($projectId: String!, $title: String!) { createProject(projectId: $projectId, title: $title) { position } }"
    with connected(server, token_file, ca) as client:
        _ask(client, document, {"projectId": project, "title": title}, is_safe=False)
    typer.echo(project)


@app.command()
def admit(
    project: Project,
    principal: Principal,
    role: Annotated[Role, typer.Option(help="viewer sees; curator also tags, saves and freezes; owner also admits.")] = Role.VIEWER,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Make a principal a member, or give it another role.

    Example:

        anamnesis project admit liver token:3f2a9c51d0e7 --role curator
    """
    document = (
        "mutation ($projectId: String!, $principalId: String!, $role: ProjectRole!) {"
        " admitMember(projectId: $projectId, principalId: $principalId, role: $role) { position } }"
    )
    with connected(server, token_file, ca) as client:
        _ask(client, document, {"projectId": project, "principalId": principal, "role": role.name}, is_safe=False)
    typer.echo(f"{principal} is {role.value} of {project}.")


@app.command()
def remove(project: Project, principal: Principal, server: Server = None, token_file: TokenFile = None, ca: Ca = None) -> None:
    """End a membership.

    Example:

        anamnesis project remove liver token:3f2a9c51d0e7
    """
    document = (
        "mutation ($projectId: String!, $principalId: String!) {"
        " removeMember(projectId: $projectId, principalId: $principalId) { position } }"
    )
    with connected(server, token_file, ca) as client:
        _ask(client, document, {"projectId": project, "principalId": principal}, is_safe=False)
    typer.echo(f"{principal} is no member of {project} any more.")


def _ask(client: Client, document: str, variables: dict[str, Any] | None = None, *, is_safe: bool = True) -> dict[str, Any]:
    return client._transport.run(ask(document, variables or {}, is_safe=is_safe))
