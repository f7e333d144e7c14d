"""An auditor's bundle: what it shows, that it verifies without us, and that every lie in it is found and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mixed_log import fill, study_uid, subject_id
from pydantic import SecretStr

from domain.principal import Principal, PrincipalKind
from domain.review import FindingReviewed
from domain.signature import Meaning
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.sealer import seal
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.ledger.projection import LedgerProjection
from projections.runner import Runner
from server import signing
from server.audit import verifier
from server.audit.export import export
from server.audit.scope import Scope, of_tag, of_time
from server.errors import DestinationTaken, NothingToExport

ADA = Principal(id="token:ada", kind=PrincipalKind.PERSON)
EVENTS = 600
Lines = list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def log(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EventLog]:
    """A log of mixed events, sealed several times, with one signed review."""
    from conftest import drop_database, fresh_database

    url = await fresh_database(embedded_server)
    log_settings = LogSettings(data_dir=tmp_path_factory.mktemp("bundle"), database_url=SecretStr(url))
    make_key_encryption_key(log_settings)
    await migrate(log_settings)
    log = await EventLog.open(log_settings)
    for seed in range(3):
        if seed:
            await _one_more(log)
        else:
            await fill(log, EVENTS)
        await seal(log)
    await Runner(log, [LedgerProjection()]).catch_up()
    yield log
    await log.close()
    await drop_database(embedded_server, url)


async def _one_more(log: EventLog) -> None:
    """Something to seal: the first review of the log is signed, by a key that is new each time."""
    await signing.enroll(log, ADA, "Ada Reader", "correct horse battery")
    signer = await signing.unlock(log.pool, ADA, "correct horse battery")
    reviews = await log.read(0, 500, [FindingReviewed])
    meaning = Meaning.REVIEW if await log.pool.fetchval("SELECT count(*) FROM signer") == 1 else Meaning.APPROVAL
    await signing.sign(log, reviews[0], meaning, signer, ADA)


@pytest.fixture(scope="module")
def exported(log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle of the first study, as the tests of lies copy and change it."""
    return tmp_path_factory.mktemp("exported") / "bundle"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundle(log: EventLog, exported: Path) -> Path:
    await export(log, of_tag("study", study_uid(0)), exported)
    return exported


def lines(bundle: Path, name: str = "events.ndjson") -> Lines:
    return [json.loads(line) for line in (bundle / name).read_text("utf-8").splitlines()]


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_bundle_of_a_study_shows_its_events_and_nothing_of_others(log: EventLog, bundle: Path) -> None:
    result = verifier.verify(bundle)
    assert result.holds, result.problems
    shown = [line for line in lines(bundle) if "envelope" in line]
    about = [line for line in shown if f"study:{study_uid(0)}" in line["about"]]
    assert len(about) == result.facts["disclosed"] - 2  # beside the enrolments of the two keys that signed
    assert {line["envelope"]["type"] for line in shown if line not in about} == {"SignerEnrolled"}
    assert result.facts["signatures"] == 2 and result.facts["size"] == await log.head()
    everything = (bundle / "events.ndjson").read_text("utf-8") + (bundle / "report.html").read_text("utf-8")
    assert study_uid(0) in everything and study_uid(4) not in everything and subject_id(3) not in everything
    assert "Planted" not in everything and "Ada Reader" not in everything


@pytest.mark.parametrize(
    "scope",
    [of_tag("subject", subject_id(2)), of_tag("series", f"{study_uid(5)}.1"), of_tag("study", study_uid(7))],
    ids=lambda scope: scope.asked.split()[0],
)
async def test_bundles_of_other_scopes_hold(log: EventLog, tmp_path: Path, scope: Scope) -> None:
    done = await export(log, scope, tmp_path / "b.zip")
    result = verifier.verify(tmp_path / "b.zip")
    assert result.holds, result.problems
    assert done.whole > 0 and done.whole + done.without_data + done.withheld == done.size


async def test_a_bundle_of_a_time_leaves_the_rest_out_as_subtrees(log: EventLog, tmp_path: Path) -> None:
    moments = [row["recorded_at"] for row in await log.pool.fetch("SELECT recorded_at FROM event ORDER BY position")]
    scope = of_time(moments[100], moments[160])
    done = await export(log, scope, tmp_path / "b")
    result = verifier.verify(tmp_path / "b")
    assert result.holds, result.problems
    assert len(lines(tmp_path / "b")) < done.whole + 40 and done.whole >= 61


async def test_everything_is_a_scope_too(log: EventLog, tmp_path: Path) -> None:
    first = await log.pool.fetchval("SELECT min(recorded_at) FROM event")
    done = await export(log, of_time(first - timedelta(days=1), None), tmp_path / "b")
    assert done.whole == done.size == await log.head()
    assert verifier.verify(tmp_path / "b").holds


async def test_the_verifier_in_the_bundle_runs_alone(bundle: Path, tmp_path: Path) -> None:
    """In a process that can import nothing of ours, from another folder."""
    script = bundle / "verify.py"
    done = subprocess.run(  # noqa: ASYNC221  (nothing else runs here)
        [sys.executable, "-I", str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "It holds" in done.stdout
    assert "import eventlog" not in script.read_text() and "import server" not in script.read_text()


async def test_a_key_that_the_auditor_had_must_have_signed(log: EventLog, bundle: Path) -> None:
    (key,) = [key for key in json.loads((bundle / "keys.json").read_text())["keys"]][:1]
    assert verifier.verify(bundle, key).holds
    stranger = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert "the key that you gave" in verifier.verify(bundle, stranger).problems[0].what
    with pytest.raises(ValueError, match="verification key"):
        verifier.verify(bundle, stranger.replace("c74f20a3", "00000000"))


async def test_nothing_to_export_and_a_taken_place_are_said(log: EventLog, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToExport, match="1\\.2\\.3"):
        await export(log, of_tag("study", "1.2.3"), tmp_path / "b")
    assert not (tmp_path / "b").exists()
    with pytest.raises(DestinationTaken):
        await export(log, of_tag("study", study_uid(0)), bundle)


def _rewrite(bundle: Path, change: Callable[[Lines], None]) -> None:
    changed = lines(bundle)
    change(changed)
    (bundle / "events.ndjson").write_text("".join(json.dumps(line) + "\n" for line in changed), "utf-8")
    _bless(bundle)


def _bless(bundle: Path) -> None:
    """The liar mends the manifest, which nobody signed."""
    import hashlib

    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _of(found: Lines, kind: str) -> dict[str, Any]:
    return next(line for line in found if (kind == "withheld") == ("envelope" not in line) and ("data" in line) == (kind == "whole"))


def _change_data(found: Lines) -> None:
    line = next(line for line in found if line.get("envelope", {}).get("type") == "SeriesIndexed")
    line["data"] = line["data"].replace("lung_left", "lung_right")


def _change_principal(found: Lines) -> None:
    _of(found, "whole")["envelope"]["principal"]["id"] = "token:somebody-else"


def _change_time(found: Lines) -> None:
    _of(found, "whole")["envelope"]["recorded_at"] = "2020-01-01T00:00:00.000000Z"


def _drop(found: Lines) -> None:
    del found[next(n for n, line in enumerate(found) if "data" in line)]


def _swap(found: Lines) -> None:
    found[3], found[4] = found[4], found[3]


def _double(found: Lines) -> None:
    found.insert(5, found[5])


def _withhold(found: Lines) -> None:
    """An event about the study, shown as digests alone, with its true digests."""
    n = next(n for n, line in enumerate(found) if line.get("envelope", {}).get("type") == "FindingReviewed")
    line = found[n]
    salt = verifier.salt_of(line["envelope"]["event_id"])
    import hashlib

    found[n] = {
        "position": line["position"],
        "envelope_sha256": hashlib.sha256(verifier.canonical(line["envelope"])).hexdigest(),
        "salt": salt.hex(),
        "scope": sorted(verifier.tag_digest(salt, tag) for tag in line["about"]),
    }


def _withhold_data(found: Lines) -> None:
    line = next(line for line in found if line.get("envelope", {}).get("type") == "FindingReviewed")
    salt = verifier.salt_of(line["envelope"]["event_id"])
    line["scope"] = sorted(verifier.tag_digest(salt, tag) for tag in line.pop("about"))
    del line["data"]


def _cut(found: Lines) -> None:
    del found[-7:]


@pytest.mark.parametrize(
    "lie",
    [_change_data, _change_principal, _change_time, _drop, _swap, _double, _withhold, _withhold_data, _cut],
    ids=lambda lie: lie.__name__.strip("_"),
)
async def test_lies_are_found(bundle: Path, tmp_path: Path, lie: Callable[[Lines], None]) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    _rewrite(copy, lie)
    result = verifier.verify(copy)
    assert not result.holds and result.problems
    if lie in (_withhold, _withhold_data):
        assert any("about" in one.what and one.position for one in result.problems)


async def test_a_forged_checkpoint_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    notes = lines(copy, "checkpoints.ndjson")
    body, separator, signatures = notes[-1]["note"].rpartition("\n\n")
    origin, size, _, *rest = body.split("\n")
    forged = "\n".join([origin, size, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", *rest])
    notes[-1]["note"] = forged + separator + signatures
    (copy / "checkpoints.ndjson").write_text("".join(json.dumps(note) + "\n" for note in notes))
    _bless(copy)
    problems = " ".join(one.what for one in verifier.verify(copy).problems)
    assert "signature" in problems and "root" in problems


async def test_a_signature_on_another_event_is_found(bundle: Path, tmp_path: Path) -> None:
    """The signer's key does not sign for anybody else: here the signature is taken from another meaning."""
    copy = shutil.copytree(bundle, tmp_path / "copy")

    def change(found: Lines) -> None:
        signed = [line for line in found if line.get("envelope", {}).get("type") == "EventSigned"]
        assert len(signed) == 2
        signed[0]["data"], signed[1]["data"] = signed[1]["data"], signed[0]["data"]

    _rewrite(copy, change)
    assert not verifier.verify(copy).holds


async def test_what_is_no_bundle_is_said(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(verifier.NotABundle):
        verifier.verify(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK nonsense")
    with pytest.raises(verifier.NotABundle):
        verifier.verify(tmp_path / "x.zip")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "events.ndjson").write_text("{")
    _bless(copy)
    with pytest.raises(verifier.NotABundle):
        verifier.verify(copy)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_no_changed_byte_of_the_events_goes_unnoticed(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = (bundle / "events.ndjson").read_bytes()
    at = data.draw(st.integers(0, len(original) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != original[at]))
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    changed = original[:at] + bytes([byte]) + original[at + 1 :]
    (copy / "events.ndjson").write_bytes(changed)
    try:
        result = verifier.verify(copy)
    except verifier.NotABundle:
        return
    assert not result.holds


async def test_a_bundle_of_every_truncation_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    whole = (copy / "events.ndjson").read_bytes().splitlines(keepends=True)
    for kept in range(0, len(whole), max(1, len(whole) // 20)):
        (copy / "events.ndjson").write_bytes(b"".join(whole[:kept]))
        _bless(copy)
        assert not verifier.verify(copy).holds
