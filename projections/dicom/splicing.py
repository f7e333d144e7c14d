"""Headers as bytes that are spliced, not parsed: what a batch shares once, what an instance has of its own in the gaps.

DICOM JSON objects are ordered by tag (PS3.18 F.2.2), so an instance's own elements lie between shared ones. ``shared`` is cut
where any instance of the batch has elements of its own; its pieces and an instance's pieces alternate.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.series import DicomJson

_ENCODE = msgspec.json.Encoder().encode


def split(common: DicomJson, headers: Sequence[DicomJson]) -> tuple[list[bytes], list[list[bytes]]]:
    """The shared pieces (one more than gaps), and for each header its piece for each gap."""
    own_tags: set[str] = set().union(*headers)
    pieces: list[list[bytes]] = [[]]
    gaps: list[list[str]] = []
    in_gap = False
    for tag in sorted(own_tags | common.keys()):
        if tag not in own_tags:
            pieces[-1].append(_member(tag, common[tag]))
            in_gap = False
            continue
        if not in_gap:
            gaps.append([])
            pieces.append([])
            in_gap = True
        gaps[-1].append(tag)
    own = [[_own(tags, common, header) for tags in gaps] for header in headers]
    return [b"".join(piece) for piece in pieces], own


def _own(tags: Sequence[str], common: DicomJson, header: DicomJson) -> bytes:
    """A tag in both is the instance's own (as in domain.series.join_header)."""
    return b"".join(_member(tag, header[tag] if tag in header else common[tag]) for tag in tags if tag in header or tag in common)


def _member(tag: str, element: object) -> bytes:
    return b'"%s":%s,' % (tag.encode("ascii", "replace"), _ENCODE(element))


def join(shared: Sequence[bytes], own: Sequence[bytes]) -> bytes:
    """The header again, as a JSON object."""
    pieces = [shared[0]]
    for mine, ours in zip(own, shared[1:], strict=True):
        pieces.append(mine)
        pieces.append(ours)
    return b"{" + b"".join(pieces)[:-1] + b"}"


def halves(answer: DicomJson, at: str) -> tuple[bytes, bytes]:
    """An object as the members before tag ``at`` (each with a comma behind) and those beyond it (each with one before).

    Between them goes an element that only the request knows: the Retrieve URL.
    """
    before = b"".join(_member(tag, answer[tag]) for tag in sorted(answer) if tag < at)
    beyond = b"".join(_member(tag, answer[tag]) for tag in sorted(answer) if tag > at)
    return before, b"," + beyond[:-1] if beyond else b""
