"""The report of a bundle for people: one HTML file without scripts or links out, with a timeline as a picture.

It says what the events say. What proves them is beside it: the report itself is not signed, and the verifier does not read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from typing import Any

import msgspec

from domain.event import EVENT_TYPES, identifying_fields

Line = dict[str, Any]
MAX_DOTS = 2_000
"""Beyond these the picture shows a sample; the table below it is whole."""
_LANE_HEIGHT, _WIDTH, _LEFT = 26, 1080, 250
_COLOURS = {
    "received": "#2f6fab",
    "indexed": "#3c8c5a",
    "reviewed": "#b8741a",
    "person": "#7a4ea3",
    "read": "#8a8f98",
    "refused": "#b83a3a",
}
_KINDS = {
    "InstancesStored": "received",
    "StudyRegistered": "received",
    "IndexingRequested": "indexed",
    "SeriesIndexed": "indexed",
    "FindingReviewed": "reviewed",
    "EventSigned": "reviewed",
    "AccessesRecorded": "read",
    "FileRefused": "refused",
    "InstanceConflicted": "refused",
    "IndexingRefused": "refused",
    "IndexingFailed": "refused",
    "StudySubjectDisputed": "refused",
}


class Event(msgspec.Struct, frozen=True):
    """What the report shows of an event: its envelope, and the plain fields of its data (None where they are withheld)."""

    position: int
    envelope: Line
    data: Line | None

    @property
    def kind(self) -> str:
        return _KINDS.get(self.envelope["type"], "person")

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.envelope["recorded_at"].replace("Z", "+00:00"))


def shown_event(line: Line) -> Event:
    """From a line of events.ndjson that is whole or an envelope."""
    data = msgspec.json.decode(line["data"]) if "data" in line else None
    return Event(line["position"], line["envelope"], data)


def report(manifest: Line, checkpoint: str, events: Sequence[Event], accesses: Sequence[Line]) -> Iterator[str]:
    """The page, piece by piece. ``accesses`` are lines of accesses.ndjson."""
    yield _HEAD
    yield f"<h1>{escape(_title(manifest))}</h1>"
    yield from _summary(manifest, checkpoint)
    yield "<h2>Timeline</h2>"
    yield from _timeline(events)
    yield "<h2>Events</h2><table><thead><tr><th>position</th><th>recorded (UTC)</th><th>event</th><th>who</th><th>what</th></tr></thead><tbody>"
    for event in events:
        yield _row(event)
    yield "</tbody></table>"
    if accesses:
        yield "<h2>Who looked</h2><table><thead><tr><th>from – to (UTC)</th><th>who</th><th>what</th><th>times</th><th>position</th></tr></thead><tbody>"
        yield from (_access_row(access) for access in accesses)
        yield "</tbody></table>"
    yield "</body></html>\n"


def _title(manifest: Line) -> str:
    scope = manifest["scope"]
    return f"Audit of {scope['asked']}"


def _summary(manifest: Line, checkpoint: str) -> Iterator[str]:
    counts = manifest["counts"]
    yield (
        f"<p>Site <b>{escape(manifest['site'])}</b>, log of <b>{manifest['size']:,}</b> events. Shown whole: <b>{counts['whole']:,}</b>;"
        f" without their data: {counts['without_data']:,}; as digests alone: {counts['withheld']:,}. Every position of the log is"
        " accounted for.</p>"
    )
    yield (
        "<p>To check that nothing was altered and nothing about this scope left out: <code>python3 verify.py --key KEY</code> in this"
        " folder, with a verification key of the site that you had from elsewhere (or <code>anamnesis audit verify</code>).</p>"
    )
    yield f"<details><summary>The signed checkpoint</summary><pre>{escape(checkpoint)}</pre></details>"
    if manifest["scope"].get("signers"):
        yield f"<p>Signed by: {escape(', '.join(manifest['scope']['signers']))}</p>"


def _timeline(events: Sequence[Event]) -> Iterator[str]:
    if not events:
        yield "<p>No event is about this.</p>"
        return
    lanes = list(dict.fromkeys(event.envelope["stream"] for event in events))[:40]
    first, last = min(e.at for e in events), max(e.at for e in events)
    span = max((last - first).total_seconds(), 0.001)
    height = _LANE_HEIGHT * (len(lanes) + 1)
    yield f'<svg viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" role="img" aria-label="Events over time, a line for each stream">'
    for n, stream in enumerate(lanes):
        y = _LANE_HEIGHT * n + _LANE_HEIGHT / 2
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" class="lane"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(_short(stream))}</text>'
    step = max(1, len(events) // MAX_DOTS)
    for event in events[::step]:
        if event.envelope["stream"] in lanes:
            x = _LEFT + _WIDTH * (event.at - first).total_seconds() / span
            y = _LANE_HEIGHT * lanes.index(event.envelope["stream"]) + _LANE_HEIGHT / 2
            said = f"{event.position}: {event.envelope['type']}, {event.envelope['recorded_at']}"
            yield f'<a href="#p{event.position}"><circle cx="{x:.1f}" cy="{y}" r="5" fill="{_COLOURS[event.kind]}"><title>{escape(said)}</title></circle></a>'
    y = height - 8
    yield f'<text x="{_LEFT}" y="{y}">{first:%Y-%m-%d %H:%M:%S}</text>'
    yield f'<text x="{_LEFT + _WIDTH}" y="{y}" text-anchor="end">{last:%Y-%m-%d %H:%M:%S}</text></svg>'
    yield "<p>" + " ".join(f'<span class="key" style="background:{c}"></span>{k}' for k, c in _COLOURS.items()) + "</p>"


def _row(event: Event) -> str:
    envelope = event.envelope
    principal = envelope["principal"]
    who = escape(principal["id"]) + (f" for {escape(principal['on_behalf_of'])}" if principal.get("on_behalf_of") else "")
    return (
        f'<tr id="p{event.position}"><td>{event.position}</td><td>{escape(envelope["recorded_at"].replace("T", " ").rstrip("Z"))}</td>'
        f'<td><span class="key" style="background:{_COLOURS[event.kind]}"></span>{escape(envelope["type"])}<br>'
        f"<small>{escape(envelope['stream'])}</small></td><td>{who}</td><td>{_what(event)}</td></tr>"
    )


def _access_row(access: Line) -> str:
    what = " ".join(str(access.get(name, "")) for name in ("action", "resource_type", "route", "outcome"))
    return (
        f"<tr><td>{escape(access['first_at'])} – {escape(access['last_at'])}</td><td>{escape(access['principal']['id'])}</td>"
        f"<td>{escape(what)}</td><td>{access['count']}</td><td>{access['position']}</td></tr>"
    )


def _what(event: Event) -> str:
    if event.data is None:
        return "<i>withheld: it names others too</i>"
    sealed = sorted(identifying_fields(EVENT_TYPES[event.envelope["type"]])) if "sealed" in event.data else []
    fields = [f"<b>{escape(name)}</b> {escape(_said(value))}" for name, value in event.data.items() if name != "sealed"]
    if sealed:
        fields.append(f"<i>sealed: {escape(', '.join(sealed))}</i>")
    return f"<details><summary>{escape(_headline(event.data))}</summary>{'<br>'.join(fields)}</details>"


def _headline(data: Line) -> str:
    for name in ("verdict", "meaning", "reason", "segmenter", "modality", "door"):
        if data.get(name):
            return f"{name} {data[name]}"
    if "findings" in data:
        return f"{len(data['findings'])} findings"
    return "details"


def _said(value: Any) -> str:
    if isinstance(value, list) and len(value) > 5:
        return f"{len(value)} entries, the first: {_said(value[0])}"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode("utf-8")
    return text if len(text) <= 600 else f"{text[:600]}…"


def _short(stream: str) -> str:
    return stream if len(stream) <= 38 else f"{stream[:14]}…{stream[-22:]}"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Audit report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem; color: #1c2530 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #d8dde3; padding: .35rem .6rem; text-align: left; vertical-align: top }
th { position: sticky; top: 0; background: #fff } tr:target { background: #fff6d8 }
pre, code { background: #f2f4f7; padding: .1rem .3rem; overflow-x: auto } small { color: #5d6875; word-break: break-all }
svg { width: 100% } svg text { font: 12px system-ui, sans-serif; fill: #1c2530 } .lane { stroke: #d8dde3 }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin: 0 .35em 0 .6em }
td .key { margin-left: 0 } details { max-width: 48rem; word-break: break-word }
</style></head><body>
"""
