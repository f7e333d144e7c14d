#!/usr/bin/env python3
"""Checks an auditor's bundle of Anamnesis, offline and without trusting whoever made it.

    python3 verify.py [BUNDLE] [--key VKEY] [--json]

One file, which needs Python 3.9 or later and the package `cryptography`; the same file is inside every bundle. BUNDLE is the folder
or the zip (by default the folder of this file). VKEY is a verification key of the site that you had from elsewhere than from
this bundle (its web page, an earlier audit, a letter): without one, the bundle's own keys are all there is to go by.

What is checked, in one pass over events.ndjson:
1. every position from 1 to the checkpoint's size is there exactly once: as an event, as an envelope whose data are withheld, as
   digests alone, or inside a subtree that lies outside the time range;
2. the events' digests, recomputed from what is disclosed, give the Merkle tree (RFC 9162, 2.1) whose root each checkpoint names;
3. the checkpoints (C2SP tlog-checkpoint, signed-note) carry good signatures of the keys in keys.json;
4. no event of which only digests are shown is about what was asked for: its digest commits to what it is about;
5. the inclusion proofs (RFC 9162, 2.1.3) of the disclosed events, and the consistency proofs (2.1.4) between the checkpoints;
6. electronic signatures: each is a good Ed25519 signature (RFC 7515, RFC 8037) of the enrolled key, over that very event's digest.

Exit code 0: all of it holds. 1: something does not, and each such thing is named. 2: this is no bundle.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "anamnesis-audit-bundle/1"
_SCOPE_ENDINGS = {"study_uid": "study", "series_uid": "series", "subject_id": "subject", "dataset_id": "dataset"}
_ENDINGS = tuple(_SCOPE_ENDINGS)
_ED25519, _COSIGNATURE = 1, 4
MAX_PROBLEMS = 1000


class NotABundle(Exception):
    """Raised when the files of a bundle are not there, or are not of a form that this verifier knows."""


@dataclass
class Problem:
    """One thing that does not hold. ``position`` is 0 where it is not about one event."""

    position: int
    what: str
    stream: str = ""


@dataclass
class Result:
    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not self.problems

    def wrong(self, what: str, position: int = 0, stream: str = "") -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(position, what, stream))


# --- the Merkle tree (RFC 9162, 2.1) ---


def leaf_hash(digest: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + digest).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The roots of the perfect subtrees of what was added so far, largest first: enough for the root at every size."""

    def __init__(self) -> None:
        self.size = 0
        self._stack: list[tuple[int, bytes]] = []

    def add(self, digest: bytes) -> None:
        self.add_subtree(0, leaf_hash(digest))

    def add_subtree(self, height: int, hash_: bytes) -> None:
        """A perfect subtree of 2^height leaves. Raises ValueError where none can be at this place."""
        if self.size % (1 << height):
            raise ValueError("a subtree begins where none can begin")
        self.size += 1 << height
        stack = self._stack
        while stack and stack[-1][0] == height:
            hash_ = node_hash(stack.pop()[1], hash_)
            height += 1
        stack.append((height, hash_))

    def root(self) -> bytes:
        if not self._stack:
            return hashlib.sha256(b"").digest()
        root = self._stack[-1][1]
        for _, hash_ in reversed(self._stack[:-1]):
            root = node_hash(hash_, root)
        return root


def root_from_inclusion(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes | None:
    """RFC 9162, 2.1.3.2. None where the path cannot be one of this leaf."""
    if index >= size:
        return None
    fn, sn, hash_ = index, size - 1, leaf
    for step in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            hash_ = node_hash(step, hash_)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            hash_ = node_hash(hash_, step)
        fn, sn = fn >> 1, sn >> 1
    return hash_ if sn == 0 else None


def is_consistent(first: int, second: int, first_root: bytes, second_root: bytes, path: list[bytes]) -> bool:
    """RFC 9162, 2.1.4.2."""
    if first == second:
        return not path and first_root == second_root
    if first == 0:
        return not path
    if first > second or not path:
        return False
    steps = list(path)
    if first & (first - 1) == 0:
        steps.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = steps[0]
    for step in steps[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(step, fr), node_hash(step, sr)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, step)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root


# --- signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature) ---


@dataclass
class VerificationKey:
    name: str
    key_id: bytes
    algorithm: int
    public: Ed25519PublicKey
    text: str


def parse_key(text: str) -> VerificationKey:
    """A verification key as C2SP signed-note writes it: name+hash+base64(algorithm byte and key). Raises ValueError."""
    name, _, rest = text.strip().partition("+")
    key_hash, _, encoded = rest.partition("+")
    raw = base64.b64decode(encoded, validate=True)
    expected = hashlib.sha256(name.encode("utf-8") + b"\n" + raw).digest()[:4]
    if not name or len(raw) != 33 or raw[0] not in (_ED25519, _COSIGNATURE) or expected.hex() != key_hash:
        raise ValueError(f"{text.strip()!r} is no verification key")
    return VerificationKey(name, expected, raw[0], Ed25519PublicKey.from_public_bytes(raw[1:]), text.strip())


@dataclass
class Checkpoint:
    origin: str
    size: int
    root: bytes
    signed_by: list[str]
    """The verification keys, as text, whose signatures are good."""
    bad_signatures: int
    signed_at: int | None
    """Seconds since 1970, where a signature states the time (cosignature/v1)."""


def parse_checkpoint(note: str, keys: list[VerificationKey]) -> Checkpoint:
    """Raises ValueError for what is no checkpoint."""
    text, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise ValueError("a checkpoint without signatures")
    text += "\n"
    lines = text.split("\n")
    origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    if not origin or len(root) != 32 or str(size) != lines[1]:
        raise ValueError("a malformed checkpoint")
    signed_by, bad, signed_at = [], 0, None
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != "\u2014":
            raise ValueError("a malformed signature line")
        raw = base64.b64decode(encoded, validate=True)
        for key in keys:
            if key.name == name and key.key_id == raw[:4]:
                try:
                    signed_at = _verify(key, raw[4:], text) or signed_at
                    signed_by.append(key.text)
                except (InvalidSignature, ValueError):
                    bad += 1
    return Checkpoint(origin, size, root, signed_by, bad, signed_at)


def _verify(key: VerificationKey, signature: bytes, text: str) -> int | None:
    if key.algorithm == _ED25519:
        key.public.verify(signature, text.encode("utf-8"))
        return None
    at = int.from_bytes(signature[:8], "big")
    key.public.verify(signature[8:], f"cosignature/v1\ntime {at}\n{text}".encode())
    return at


# --- events ---


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """RFC 8785, for what an envelope holds: strings, integers, null, and ASCII keys."""
    return _encode(value).encode("utf-8")


def salt_of(event_id: str) -> bytes:
    return hashlib.sha256(b"anamnesis scope" + bytes.fromhex(event_id.replace("-", ""))).digest()[:16]


def tag_digest(salt: bytes, tag: str) -> str:
    return hashlib.sha256(salt + tag.encode("utf-8")).hexdigest()


def event_digest(envelope_sha256: str, salt: str, scope: list[str]) -> bytes:
    return hashlib.sha256(canonical({"envelope_sha256": envelope_sha256, "salt": salt, "scope": sorted(scope)})).digest()


def disclosed_digest(line: dict[str, Any]) -> bytes:
    """The digest of an event from whatever of it is shown: whole, without its data, or digests alone."""
    if "envelope" not in line:
        return event_digest(line["envelope_sha256"], line["salt"], line["scope"])
    envelope = line["envelope"]
    salt = salt_of(envelope["event_id"])
    scope = [tag_digest(salt, tag) for tag in line["about"]] if "about" in line else line["scope"]
    return event_digest(hashlib.sha256(canonical(envelope)).hexdigest(), salt.hex(), scope)


# --- the bundle ---


class Bundle:
    """The files of a bundle, in a folder or a zip."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path) if path.is_file() else None
        self._path = path

    def open(self, name: str) -> io.TextIOBase:
        """Raises NotABundle."""
        try:
            if self._zip is not None:
                return io.TextIOWrapper(self._zip.open(name), encoding="utf-8", newline="\n")
            return (self._path / name).open(encoding="utf-8", newline="\n")
        except (KeyError, OSError) as error:
            raise NotABundle(f"{name} is not in {self._path}") from error

    def sha256(self, name: str) -> str:
        """Of a file's bytes, in hexadecimal. Raises NotABundle."""
        digest = hashlib.sha256()
        try:
            with self._zip.open(name) if self._zip is not None else (self._path / name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except (KeyError, OSError) as error:
            raise NotABundle(f"{name} is not in {self._path}") from error
        return digest.hexdigest()

    def json(self, name: str) -> Any:
        with self.open(name) as file:
            try:
                return json.load(file)
            except ValueError as error:
                raise NotABundle(f"{name} is not JSON") from error

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        with self.open(name) as file:
            for number, text in enumerate(file, start=1):
                try:
                    yield json.loads(text)
                except ValueError as error:
                    raise NotABundle(f"line {number} of {name} is not JSON") from error


def verify(path: Path, pinned: str | None = None, progress: Callable[[int, int], None] | None = None) -> Result:
    """Checks a bundle; ``progress`` hears (position, size). Raises NotABundle, and ValueError where ``pinned`` is no key."""
    if pinned is not None:
        parse_key(pinned)
    try:
        bundle = Bundle(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise NotABundle(f"{path} is neither a folder nor a zip") from error
    manifest = bundle.json("manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise NotABundle(f"{path} is not of the form {FORMAT}")
    result = Result()
    try:
        _verify_bundle(bundle, manifest, pinned, progress, result)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, binascii.Error) as error:
        result.wrong(f"the bundle is malformed: {type(error).__name__} {error}")
    return result


def _verify_bundle(
    bundle: Bundle,
    manifest: dict[str, Any],
    pinned: str | None,
    progress: Callable[[int, int], None] | None,
    result: Result,
) -> None:
    for name, sha256 in manifest["files"].items():
        if bundle.sha256(name) != sha256:
            result.wrong(f"the file {name} is not as the manifest says")
    keys = [parse_key(text) for text in bundle.json("keys.json")["keys"]]
    checkpoints = _checkpoints(bundle, keys, pinned, result)
    size = int(manifest["size"])
    events = _Events(manifest, {one.size: one for one in checkpoints}, result)
    for line in bundle.lines("events.ndjson"):
        events.add(line)
        if progress is not None and events.tree.size % 2000 == 0:
            progress(events.tree.size, size)
    events.finish(size)
    _check_proofs(bundle, checkpoints, events, result)
    events.check_signatures()
    result.facts.update(
        origin=checkpoints[-1].origin if checkpoints else "",
        size=size,
        root=events.tree.root().hex(),
        scope=manifest["scope"],
        disclosed=events.disclosed,
        envelopes=events.envelopes,
        withheld=events.withheld,
        checkpoints=len(checkpoints),
        signatures=events.signatures,
        signed_at=max((one.signed_at for one in checkpoints if one.signed_at), default=None),
        keys=[key.text for key in keys],
        pinned=pinned,
    )


def _checkpoints(bundle: Bundle, keys: list[VerificationKey], pinned: str | None, result: Result) -> list[Checkpoint]:
    if pinned is not None and all(key.text != pinned.strip() for key in keys):
        keys = [*keys, parse_key(pinned)]
    found = []
    for line in bundle.lines("checkpoints.ndjson"):
        checkpoint = parse_checkpoint(line["note"], keys)
        if not checkpoint.signed_by:
            result.wrong(f"the checkpoint at size {checkpoint.size} carries no signature of a known key")
        if checkpoint.bad_signatures:
            result.wrong(f"the checkpoint at size {checkpoint.size} carries {checkpoint.bad_signatures} bad signatures")
        found.append(checkpoint)
    if not found:
        result.wrong("the bundle holds no checkpoint")
    if pinned is not None and not any(pinned.strip() in one.signed_by for one in found):
        result.wrong("no checkpoint is signed by the key that you gave")
    return found


class _Events:
    """What is gathered in the pass over the events."""

    def __init__(self, manifest: dict[str, Any], checkpoints: dict[int, Checkpoint], result: Result) -> None:
        self.tree = Tree()
        self.disclosed = self.envelopes = self.withheld = self.signatures = 0
        self.leaves: dict[int, bytes] = {}
        self._tags: list[str] = manifest["scope"].get("tags", [])
        self._range: dict[str, Any] | None = manifest["scope"].get("range")
        self._checkpoints = checkpoints
        self._result = result
        self._recorded: dict[int, str] = {}
        self._digests: dict[str, str] = {}
        self._signed: list[tuple[int, dict[str, Any]]] = []
        self._signers: dict[str, str] = {}

    def add(self, line: dict[str, Any]) -> None:
        position = self.tree.size + 1
        if "subtree" in line:
            self._add_subtree(line, position)
        else:
            self._add_event(line, position)
        checkpoint = self._checkpoints.get(self.tree.size)
        if checkpoint is not None and self.tree.root() != checkpoint.root:
            self._result.wrong(f"the events up to here do not give the root of the checkpoint at size {checkpoint.size}", self.tree.size)

    def finish(self, size: int) -> None:
        if self.tree.size != size:
            self._result.wrong(f"the bundle accounts for {self.tree.size} positions, not for {size}")
        self._check_range(size)
        if size not in self._checkpoints:
            self._result.wrong(f"no checkpoint is of size {size}")
        for missing in sorted(set(self._checkpoints) - set(range(self.tree.size + 1))):
            self._result.wrong(f"the checkpoint at size {missing} is beyond what the bundle holds")

    def _check_range(self, size: int) -> None:
        """The events next to the range are shown as envelopes, so that the range is seen to be the one that was asked for."""
        if self._range is None:
            return
        first, last = self._range["first"], self._range["last"]
        before, beyond = self._recorded.get(first - 1, ""), self._recorded.get(last + 1, "")
        since, until = self._range.get("since"), self._range.get("until")
        if first > 1 and since and not "" < before < since:
            self._result.wrong("the event before the range is not shown to be earlier", first - 1)
        if last < size and until and not beyond > until:
            self._result.wrong("the event after the range is not shown to be later", last + 1)

    def _add_subtree(self, line: dict[str, Any], position: int) -> None:
        if self._range is None:
            self._result.wrong("a subtree is left out, and nothing shows that it is not about what was asked for", position)
        elif line["first"] <= self._range["last"] and line["last"] >= self._range["first"]:
            self._result.wrong("a subtree is left out inside the range that was asked for", position)
        height = int(line["height"])
        if line["first"] != position or line["last"] != position + (1 << height) - 1:
            self._result.wrong("a subtree is not at its place", position)
        self.withheld += 1 << height
        self.tree.add_subtree(height, bytes.fromhex(line["subtree"]))

    def _add_event(self, line: dict[str, Any], position: int) -> None:
        digest = disclosed_digest(line)
        self.tree.add(digest)
        stream = line.get("envelope", {}).get("stream", "")
        if line["position"] != position:
            self._result.wrong(f"position {line['position']} is at place {position}", position, stream)
        if "data" in line:
            self.disclosed += 1
            self.leaves[position] = digest
            self._check_data(line, position, stream, digest)
        elif "envelope" in line:
            self.envelopes += 1
            self._recorded[position] = line["envelope"]["recorded_at"]
            self._check_envelope(line, position, stream)
            self.leaves[position] = digest
        else:
            self.withheld += 1
            self._check_withheld(line, position)

    def _check_data(self, line: dict[str, Any], position: int, stream: str, digest: bytes) -> None:
        envelope = line["envelope"]
        if hashlib.sha256(line["data"].encode("utf-8")).hexdigest() != envelope["data_sha256"]:
            self._result.wrong("the data are not those of which the envelope holds the digest", position, stream)
            return
        data = json.loads(line["data"])
        for name, value in data.items():
            if not name.endswith(_ENDINGS) or not isinstance(value, str) or not value:
                continue
            kind = next(kind for ending, kind in _SCOPE_ENDINGS.items() if name.endswith(ending))
            if f"{kind}:{value}" not in line["about"]:
                self._result.wrong(f"the digest does not commit to {kind} {value}, which the data name", position, stream)
        self._digests[envelope["event_id"]] = digest.hex()
        if envelope["type"] == "EventSigned":
            self._signed.append((position, data))
        elif envelope["type"] == "SignerEnrolled":
            self._signers[data["key_id"]] = data["public_key"]

    def _check_envelope(self, line: dict[str, Any], position: int, stream: str) -> None:
        """Records of reads name many subjects: their data may be withheld. Nothing else that is about the scope may."""
        if line["envelope"]["type"] == "AccessesRecorded":
            return
        salt = salt_of(line["envelope"]["event_id"])
        if any(tag_digest(salt, tag) in line["scope"] for tag in self._tags):
            self._result.wrong("the data of an event about the scope are withheld", position, stream)

    def _check_withheld(self, line: dict[str, Any], position: int) -> None:
        if self._range is not None and self._range["first"] <= position <= self._range["last"]:
            self._result.wrong("an event inside the range that was asked for is withheld", position)
        salt = bytes.fromhex(line["salt"])
        for tag in self._tags:
            if tag_digest(salt, tag) in line["scope"]:
                self._result.wrong(f"an event about {tag} is withheld", position)

    def check_signatures(self) -> None:
        for position, signed in self._signed:
            problem = self._signature_problem(signed)
            if problem:
                self._result.wrong(f"the signature on event {signed['signed_event_id']} is not good: {problem}", position)
            else:
                self.signatures += 1

    def _signature_problem(self, signed: dict[str, Any]) -> str:
        public = self._signers.get(signed["key_id"])
        if public is None:
            return f"the enrolment of key {signed['key_id']} is not in the bundle"
        header, payload, signature = signed["signature"].split(".")
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
            key.verify(_base64url(signature), f"{header}.{payload}".encode("ascii"))
        except (InvalidSignature, ValueError):
            return "it does not verify"
        stated = json.loads(_base64url(payload))
        expected = {
            "digest": signed["signed_digest"],
            "event_id": signed["signed_event_id"],
            "meaning": signed["meaning"],
            "principal": signed["principal_id"],
        }
        if json.loads(_base64url(header)).get("alg") != "Ed25519" or any(stated.get(k) != v for k, v in expected.items()):
            return "it states something else than the event says"
        digest = self._digests.get(signed["signed_event_id"])
        if digest is None:
            return "the event that it signs is not in the bundle"
        return "" if digest == signed["signed_digest"] else "it is over another digest than the event's"


def _check_proofs(bundle: Bundle, checkpoints: list[Checkpoint], events: _Events, result: Result) -> None:
    by_size = {one.size: one for one in checkpoints}
    inclusions = consistencies = 0
    for line in bundle.lines("proofs.ndjson"):
        path = [bytes.fromhex(step) for step in line["path"]]
        if line["kind"] == "inclusion":
            inclusions += 1
            position, of = line["position"], by_size[line["size"]]
            leaf = events.leaves.get(position)
            if leaf is None or root_from_inclusion(position - 1, of.size, leaf_hash(leaf), path) != of.root:
                result.wrong(f"the inclusion proof at size {of.size} does not hold", position)
        else:
            consistencies += 1
            first, second = by_size[line["first"]], by_size[line["second"]]
            if not is_consistent(first.size, second.size, first.root, second.root, path):
                result.wrong(f"the checkpoints at sizes {first.size} and {second.size} do not agree")
    result.facts.update(inclusion_proofs=inclusions, consistency_proofs=consistencies)


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--key", help="a verification key that you had from elsewhere")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    chosen = parser.parse_args()
    try:
        result = verify(chosen.bundle, chosen.key)
    except (NotABundle, ValueError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps({"holds": result.holds, **result.facts, "problems": [vars(one) for one in result.problems]}))
    else:
        print("\n".join(describe(result)))
    return 0 if result.holds else 1


def describe(result: Result) -> list[str]:
    """The result in words, line by line."""
    facts = result.facts
    lines = []
    if "size" in facts:
        lines += [
            f"log of {facts['origin']}: {facts['size']} events, root {facts['root']}",
            f"asked for: {facts['scope']['asked']} {' '.join(facts['scope']['tags'])}".rstrip(),
            f"shown whole {facts['disclosed']}, without data {facts['envelopes']}, as digests {facts['withheld']}",
            f"{facts['checkpoints']} checkpoints, {facts['inclusion_proofs']} inclusion proofs,"
            f" {facts['consistency_proofs']} consistency proofs, {facts['signatures']} electronic signatures",
        ]
        if facts["pinned"] is None:
            lines.append("the keys are the bundle's own: compare them with what the site publishes, or give --key")
            lines += [f"  {key}" for key in facts["keys"]]
    for one in result.problems:
        where = f"position {one.position}{f' ({one.stream})' if one.stream else ''}: " if one.position else ""
        lines.append(f"WRONG {where}{one.what}")
    lines.append("It holds: nothing was altered, and nothing about the scope is left out." if result.holds else "It does NOT hold.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
