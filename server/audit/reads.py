"""Which requests are accesses, and what of them is recorded: by the route's template, the answer's status, and what the
handler said of its answer (``saw_resources``, ``saw_studies``, ``saw_subjects``, ``saw_search``).

Nothing that a client wrote freely is kept: ids only where they have the shape of ours, parameters only by names that are known.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.access import Action, Outcome
from domain.principal import Principal
from projections.fhir.patients import patient_id, patient_references
from projections.fhir.projection import TYPES
from server.audit.recorder import ANONYMOUS, AccessRecorder
from server.auth.principals import PROBE
from server.dicomweb.keys import find_key
from server.fhir.outcome import outcome
from server.route_template import route_template

SESSION_S = 15 * 60.0
"""A token that was not used for so long logs in anew."""
SESSIONS = 10_000

_OUR_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UID = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40}){1,31}")
_QIDO_PARAMETERS = frozenset({"limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching"})
_NO_ACCESSES = re.compile(r"/fhir/metadata|/fhir/\$export/[^/]*|/datasets/exports/[^/]*|/openapi\.json|/metrics|/health/.*|/audit/(log/.*|checkpoints?|keys|inclusion.*|consistency)")
"""What tells nothing of anybody: capabilities, how far an export is, counts, the digests of the log's tree. Every other GET is an access."""
_DEPTH_OF_INSTANCE_OPERATION = 4
"""Slashes of /fhir/{type}/{id}/$validate; without an id nothing that is here is looked at."""
_RETRY_AFTER_S = 5
_GRAPHQL = "/graphql"
"""Asks by POST, and changes nothing that is not an event of its own."""


class _Seen(msgspec.Struct):
    """What a handler said of its answer. Bodies are looked into once the answer is on its way."""

    bodies: list[str | bytes] = []
    studies: dict[str, None] = {}
    subjects: dict[str, None] = {}
    parameters: list[str] = []


class _Body(msgspec.Struct):
    """The few elements of a resource that tell whose it is (projections.fhir.patients)."""

    resourceType: str = ""
    id: str = ""
    subject: Any = None
    patient: Any = None
    for_: Any = msgspec.field(name="for", default=None)
    beneficiary: Any = None
    candidate: Any = None
    deliverFor: Any = None
    actor: Any = None
    link: Any = None


_BODY = msgspec.json.Decoder(_Body)
_NAMES = tuple(field.encode_name for field in msgspec.structs.fields(_Body))


def saw_resources(request: Request, bodies: Iterable[str | bytes]) -> None:
    """FHIR resources, as JSON, are in the answer."""
    _seen(request).bodies.extend(bodies)


def saw_studies(request: Request, study_uids: Iterable[str]) -> None:
    """Something of these studies is in the answer."""
    _seen(request).studies.update(dict.fromkeys(study_uids))


def saw_subjects(request: Request, subject_ids: Iterable[str]) -> None:
    """Something of these subjects is in the answer."""
    _seen(request).subjects.update(dict.fromkeys(subject_ids))


def saw_search(request: Request, parameters: Iterable[tuple[str, str]]) -> None:
    """A search that took these parameters: none that it left out, as unknown. Their values are not kept."""
    _seen(request).parameters.extend(name for name, _ in parameters)


def _seen(request: Request) -> _Seen:
    seen = getattr(request.state, "seen", None)
    if seen is None:
        seen = request.state.seen = _Seen()
    assert isinstance(seen, _Seen)
    return seen


class Reads:
    """ASGI middleware: hands each access to the recorder once its answer is sent."""

    def __init__(self, app: ASGIApp, recorder: AccessRecorder) -> None:
        self._app = app
        self._recorder = recorder
        self._last_use: OrderedDict[str, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._recorder.is_full and _reads(scope["method"], scope["path"]):
            await _cannot_record(scope["path"])(scope, receive, send)
            return
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            self._record(scope, status)

    def _record(self, scope: Scope, status: int) -> None:
        state = scope.get("state", {})
        authenticated = state.get("authenticated")
        principal: Principal = authenticated.principal if authenticated is not None else ANONYMOUS
        if principal is PROBE:
            return
        if authenticated is not None:
            self._log_in(principal)
        route = route_template(scope)
        action = _action(scope["method"], route)
        refused = status in (401, 403)
        if not refused and (action is None or authenticated is None):
            return
        outcome = Outcome.REFUSED if refused else _outcome(status)
        if authenticated is None:  # whoever it is: what they wrote is not kept
            self._recorder.record(ANONYMOUS, action or Action.OTHER, outcome, route=route)
            return
        seen = state.get("seen") or _Seen()
        path: dict[str, str] = scope.get("path_params", {})
        resource_type = path.get("searched_type") or path.get("resource_type", "")
        answered = outcome is Outcome.SUCCESS
        uids = {kind: path[f"{kind}_uid"] for kind in ("study", "series") if _UID.fullmatch(path.get(f"{kind}_uid", ""))}
        studies = {**seen.studies, **({uids["study"]: None} if "study" in uids else {})} if answered else {}
        self._recorder.record(
            principal,
            action or Action.OTHER,
            outcome,
            route=route,
            resource_type=resource_type if answered else "",
            things=(*_resource(path), *_subject(path), *(f"{kind}:{uid}" for kind, uid in uids.items())),
            parameters=_parameters(scope, action, seen),
            subjects=tuple(sorted({*seen.subjects, *subjects_of(seen.bodies)})) if answered else (),
            studies=tuple(sorted(studies)),
        )

    def _log_in(self, principal: Principal) -> None:
        now = time.monotonic()
        last = self._last_use.get(principal.id, float("-inf"))
        self._last_use[principal.id] = now
        self._last_use.move_to_end(principal.id)
        if len(self._last_use) > SESSIONS:
            self._last_use.popitem(last=False)
        if now - last > SESSION_S:
            self._recorder.record(principal, Action.LOGIN)


@lru_cache(maxsize=1000)
def _action(method: str, route: str) -> Action | None:
    """What a request to this route does to the data; None where it does not read any."""
    last = route.rsplit("/", 1)[-1]
    if not route or not _reads(method, route):
        return None
    if f"{route}/".startswith("/fhir/"):
        if last in ("$export", "{file_name}"):
            return Action.EXPORT
        return {
            "fhir": Action.SEARCH, "{resource_type}": Action.SEARCH, "{searched_type}": Action.SEARCH, "_search": Action.SEARCH, "_history": Action.HISTORY, "{version}": Action.VREAD
        }.get(last, Action.READ)  # fmt: skip
    if route == _GRAPHQL:
        return Action.SEARCH
    if route.startswith("/dicomweb/"):
        if last in ("rendered", "thumbnail"):
            return Action.RENDER
        return Action.QUERY if last in ("studies", "series", "instances") else Action.RETRIEVE
    if route.startswith("/datasets/exports/"):
        return Action.EXPORT
    return Action.AUDIT if route.startswith("/audit/") else Action.OTHER


def _reads(method: str, path: str) -> bool:
    """Whether a request to this path, or route's template, asks for data."""
    if method == "POST":
        if path == _GRAPHQL:
            return True
        of_instance = path.endswith("/$validate") and path.count("/") == _DEPTH_OF_INSTANCE_OPERATION
        return path.startswith("/fhir/") and (path.endswith(("/_search", "/$export")) or of_instance)
    return method in ("GET", "HEAD") and not _NO_ACCESSES.fullmatch(path)


def _cannot_record(path: str) -> Response:
    """No read goes unrecorded: while the log does not take accesses, and many wait for it, nothing is read."""
    detail = "accesses cannot be recorded now, so nothing can be read: try again"
    headers = {"Retry-After": str(_RETRY_AFTER_S)}
    if path.startswith("/fhir/"):
        return outcome(503, "transient", detail, headers=headers)
    body = msgspec.json.encode({"type": "about:blank", "status": 503, "detail": detail})
    return Response(body, 503, headers, media_type="application/problem+json")


def _outcome(status: int) -> Outcome:
    if status < 400:
        return Outcome.SUCCESS
    return Outcome.NOT_FOUND if status in (404, 410) else Outcome.FAILED


def _resource(path: dict[str, str]) -> tuple[str, ...]:
    """The resource that a path names, if its id is one that we could have given."""
    resource_id = path.get("resource_id", "")
    known = path.get("resource_type") in TYPES and _OUR_ID.fullmatch(resource_id)
    return (f"{path['resource_type']}/{resource_id}",) if known else ()


def _subject(path: dict[str, str]) -> tuple[str, ...]:
    """The subject that a path below /subjects names."""
    subject_id = path.get("subject_id", "")
    return (f"Patient/{subject_id}",) if _OUR_ID.fullmatch(subject_id) else ()


def _parameters(scope: Scope, action: Action | None, seen: _Seen) -> tuple[str, ...]:
    """Names of search parameters: of FHIR those that the search took, with their modifiers and chains, none of which a client can make up."""
    if action is Action.SEARCH:
        return tuple(sorted(set(seen.parameters)))
    if action is Action.QUERY:
        written = {name for name, _ in parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)}
        keys = {key.keyword for name in written if (key := find_key(name)) is not None}
        return tuple(sorted(keys | (written & _QIDO_PARAMETERS)))
    return ()


def subjects_of(bodies: Sequence[str | bytes]) -> set[str]:
    """Those whose data these resources, as JSON, are."""
    found = set()
    for text in bodies:
        body = _BODY.decode(text)
        if body.resourceType == "AuditEvent":  # says who looked at a subject, and nothing else of it
            continue
        if body.resourceType == "Patient":
            found.add(body.id)
            continue
        # Asked one by one for what is there: a page of a search has many resources, of most of which one element says it.
        there = {name: value for name, value in zip(_NAMES, msgspec.structs.astuple(body), strict=True) if value is not None}
        found.update(one for _, written in patient_references(there) if (one := patient_id(written)) is not None)
    return found
