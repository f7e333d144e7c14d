"""Backend services (SMART App Launch 2.2): registered clients get tokens by assertions signed with their own keys, over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from served_site import Site, served_site, slice_of
from typer.testing import CliRunner

import server.auth.clients
from domain.access import AccessesRecorded, Action, Outcome
from domain.principal import PrincipalKind
from server.auth.clients import list_clients, narrowed, register_client, revoke_client
from server.cli import build
from server.errors import SettingRefused

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADDRESS = "http://site.test/auth/token"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-384", {"kid": "ec"})


def jwks(*keys: Any) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("backend")
    async with served_site(embedded_server, folder, public_url="http://site.test") as site:
        await site.store(slice_of("1.2.840.97.1", 1))
        yield site


@pytest_asyncio.fixture(loop_scope="module")
async def client_id(site: Site) -> str:
    return await register_client(site.services.pool, name="warehouse", scopes=["system/*.rs", "audit:read"], jwks=jwks(RSA, EC))


def assertion(client_id: str, key: Any = RSA, alg: str = "RS384", header: dict[str, Any] | None = None, **claims: Any) -> str:
    payload = {"iss": client_id, "sub": client_id, "aud": ADDRESS, "exp": int(time.time()) + 60, "jti": uuid4().hex} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": key.kid} | (header or {}), payload, key, algorithms=[alg])


async def ask(site: Site, signed: str, scope: str | None = "system/*.rs", **more: str) -> httpx.Response:
    form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": signed, **more}
    return await site.client.post("/auth/token", data=form if scope is None else {**form, "scope": scope})


def refused(answer: httpx.Response, error: str) -> str:
    """As RFC 6749, 5.2 has it."""
    assert answer.json()["error"] == error, answer.text
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["error_description"])


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS384"), (EC, "ES384")])
async def test_a_client_gets_a_token_for_five_minutes(site: Site, client_id: str, key: Any, alg: str) -> None:
    answer = await ask(site, assertion(client_id, key, alg))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("bearer", 300, "system/*.rs")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await site.client.get("/fhir/Patient", headers=headers)).json()["total"] == 1
    assert (await site.client.get("/fhir/AuditEvent", headers=headers)).status_code == 403
    assert (await site.client.post("/fhir/Basic", headers=headers, json={"resourceType": "Basic"})).status_code == 403
    row = await site.services.pool.fetchrow("SELECT expires_at FROM access_token WHERE client_id = $1", client_id)
    assert timedelta(seconds=290) < row["expires_at"] - datetime.now(UTC) <= timedelta(seconds=300)
    principal = (await site.services.verifiers.verify(body["access_token"])).principal
    assert (principal.id, principal.kind) == (f"client:{client_id}", PrincipalKind.DEVICE)


@pytest.mark.parametrize(
    ("requested", "given"),
    [
        ("system/*.rs audit:read", "audit:read system/*.rs"),
        ("system/Observation.rs", "system/Observation.rs"),
        ("system/Observation.cruds?status=final&code=a%7Cb", "system/Observation.rs?status=final&code=a|b"),
        ("system/*.*", "system/*.rs"),
        ("system/Patient.read fhir:write admin user/*.rs openid", "system/Patient.rs"),
    ],
)
async def test_a_token_has_what_was_asked_for_and_registered(site: Site, client_id: str, requested: str, given: str) -> None:
    answer = await ask(site, assertion(client_id), requested)
    assert answer.status_code == 200, answer.text
    assert answer.json()["scope"] == given
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    kind = "Observation" if "Observation" in given else "Patient"
    assert (await site.client.get(f"/fhir/{kind}", headers=headers)).status_code == 200


@pytest.mark.parametrize("scope", ["system/*.cud", "fhir:read", "admin", "patient/*.rs", "nonsense", "", None])
async def test_what_was_not_registered_is_no_scope(site: Site, client_id: str, scope: str | None) -> None:
    refused(await ask(site, assertion(client_id), scope), "invalid_scope")


async def test_scopes_narrow_each_other() -> None:
    registered = ["system/Observation.rs?status=final", "system/Patient.cruds", "metrics:read"]
    assert narrowed(["system/*.rs"], registered) == ["system/Observation.rs?status=final", "system/Patient.rs"]
    assert narrowed(["system/Observation.rs?code=a"], registered) == ["system/Observation.rs?status=final&code=a"]
    assert narrowed(["system/Observation.rs?status=final"], registered) == ["system/Observation.rs?status=final"]
    assert narrowed(["system/Condition.rs", "fhir:read"], registered) == []


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": NOW - 60}, "expired"),
        ({"exp": None}, "expired"),
        ({"exp": "soon"}, "expired"),
        ({"exp": NOW + 4000}, "300 seconds"),
        ({"nbf": NOW + 4000}, "not good yet"),
        ({"iat": NOW + 4000}, "not good yet"),
        ({"aud": "http://site.test/fhir"}, "aud is"),
        ({"aud": "https://elsewhere.example/auth/token"}, "aud is"),
        ({"aud": None}, "aud is"),
        ({"sub": "another"}, "iss and sub"),
        ({"sub": None}, "iss and sub"),
        ({"iss": "another"}, "no client of this id"),
        ({"iss": None}, "names its key"),
        ({"jti": None}, "jti"),
        ({"jti": 5}, "jti"),
        ({"jti": "x" * 1001}, "jti"),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),  # without the time, which is another in each process of a run
)
async def test_a_wrong_or_missing_claim_is_refused(site: Site, client_id: str, claims: dict[str, Any], said: str) -> None:
    assert said in refused(await ask(site, assertion(client_id, **claims)), "invalid_client")


async def test_an_audience_may_be_one_of_several(site: Site, client_id: str) -> None:
    assert (await ask(site, assertion(client_id, aud=["x", ADDRESS]))).status_code == 200


async def test_only_its_own_key_speaks_for_a_client(site: Site, client_id: str) -> None:
    stranger = RSAKey.generate_key(2048, {"kid": "rsa"})
    assert "signature" in refused(await ask(site, assertion(client_id, stranger)), "invalid_client")
    unknown = RSAKey.generate_key(2048, {"kid": "unknown"})
    assert "no key of this id" in refused(await ask(site, assertion(client_id, unknown)), "invalid_client")
    head, _, signature = assertion(client_id).split(".")
    other = assertion(client_id, exp=NOW + 100).split(".")[1]
    assert "signature" in refused(await ask(site, f"{head}.{other}.{signature}"), "invalid_client")
    elsewhere = assertion(client_id, header={"jku": "https://evil.example/jwks.json"})
    assert "jku" in refused(await ask(site, elsewhere), "invalid_client")


async def test_other_algorithms_are_refused(site: Site, client_id: str) -> None:
    secret = OctKey.generate_key(384, {"kid": "rsa"})
    for signed in (assertion(client_id, RSA, "RS256"), assertion(client_id, secret, "HS384")):
        assert "RS384" in refused(await ask(site, signed), "invalid_client")
    payload = assertion(client_id).split(".")[1]
    for unsigned in (f"eyJhbGciOiJub25lIn0.{payload}.", "a.b.c", "x", "..", "é.é.é", f"{payload}.{payload}.{payload}"):
        refused(await ask(site, unsigned), "invalid_client")


async def test_an_assertion_is_good_once_however_many_ask_at_once(site: Site, client_id: str) -> None:
    signed = assertion(client_id)
    answers = await asyncio.gather(*(ask(site, signed) for _ in range(50)))
    assert sorted(one.status_code for one in answers) == [200, *[401] * 49]
    assert all("used before" in one.json()["error_description"] for one in answers if one.status_code == 401)
    # The same id of another client's is another one, and what has expired makes room.
    other = await register_client(site.services.pool, name="other", scopes=["system/*.rs"], jwks=jwks(RSA))
    assert (await ask(site, assertion(other, jti="same"))).status_code == 200
    assert (await ask(site, assertion(client_id, jti="same"))).status_code == 200
    await site.services.pool.execute("UPDATE client_assertion SET expires_at = now() - interval '1 second'")
    assert (await ask(site, assertion(client_id))).status_code == 200
    assert await site.services.pool.fetchval("SELECT count(*) FROM client_assertion") == 1


async def test_what_is_no_such_request_is_refused_by_name(site: Site, client_id: str) -> None:
    good = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": assertion(client_id)}
    for change, error in (
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "invalid_request"),
        ({"client_assertion_type": "other"}, "invalid_request"),
        ({"client_assertion": ""}, "invalid_request"),
        ({"client_assertion": "x" * 20_000}, "invalid_request"),
        ({"client_id": "another"}, "invalid_client"),
    ):
        form = {name: value for name, value in (good | change).items() if value is not None}
        refused(await site.client.post("/auth/token", data=form), error)
    for content, kind in ((b"{}", "application/json"), (b"\xff", "application/x-www-form-urlencoded"), (b"a=1&a=2", "application/x-www-form-urlencoded")):
        refused(await site.client.post("/auth/token", content=content, headers={"content-type": kind}), "invalid_request")
    large = await site.client.post("/auth/token", data={"scope": "x" * 70_000})
    assert (large.status_code, large.json()["error"]) == (413, "invalid_request")
    assert (await site.client.get("/auth/token")).status_code == 405


async def test_a_client_that_asks_too_often_has_to_wait(site: Site) -> None:
    hasty = await register_client(site.services.pool, name="hasty", scopes=["system/*.rs"], jwks=jwks(EC))
    statuses = [(await ask(site, assertion(hasty, EC, "ES384"))).status_code for _ in range(121)]
    assert statuses == [200] * 120 + [429]


async def test_a_revoked_client_and_its_tokens_are_worth_nothing(site: Site, client_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.auth.tokens, "CACHE_S", 0.0)
    made = (await ask(site, assertion(client_id))).json()["access_token"]
    headers = {"Authorization": f"Bearer {made}"}
    assert (await site.client.get("/fhir/Patient", headers=headers)).status_code == 200
    assert await revoke_client(site.services.pool, client_id)
    assert not await revoke_client(site.services.pool, client_id)
    assert (await site.client.get("/fhir/Patient", headers=headers)).status_code == 401
    assert "revoked" in refused(await ask(site, assertion(client_id)), "invalid_client")


async def test_logins_and_refusals_are_recorded_with_the_client_as_principal(site: Site, client_id: str) -> None:
    await ask(site, assertion(client_id))
    await ask(site, assertion(client_id), "admin")
    await ask(site, "a.b.c")
    await site.caught_up()
    events = [one.event for one in await site.services.log.read(0, 100_000, [AccessesRecorded])]
    accesses = [access for event in events if isinstance(event, AccessesRecorded) for access in event.accesses]
    mine = [one for one in accesses if one.principal.id == f"client:{client_id}"]
    assert [one.action for one in mine] == [Action.LOGIN]
    assert [one for one in accesses if one.route == "/auth/token" and one.outcome is Outcome.REFUSED]


async def test_an_export_is_fetched_with_a_token_that_reaches_as_far(site: Site, client_id: str) -> None:
    """The client is one principal, whatever a token of it may do: a later one with the same scopes goes on where the first ended."""
    urls: list[str] = []
    for scope, status in (("system/*.rs", 202), ("system/*.rs", 200), ("system/Observation.rs", 404)):
        made = (await ask(site, assertion(client_id), scope)).json()["access_token"]
        headers = {"Authorization": f"Bearer {made}"}
        if status == 202:
            answer = await site.client.get("/fhir/$export", headers={**headers, "Prefer": "respond-async"})
            assert answer.status_code == 202, answer.text
            urls.append(answer.headers["content-location"])
            while (answer := await site.client.get(urls[0], headers=headers)).status_code == 202:
                await asyncio.sleep(0.05)
            urls.append(answer.json()["output"][0]["url"])
            continue
        for url in urls:
            assert (await site.client.get(url, headers=headers)).status_code == status, scope
    assert (await site.client.delete(urls[0], headers=headers)).status_code == 404


# Keys that are fetched


class Publisher:
    """A client's keys at an address of this machine."""

    def __init__(self) -> None:
        self.body = jwks(RSA)
        self.status = 200
        self.asked = 0
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked += 1
                data = publisher.body.encode()
                self.send_response(publisher.status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/jwks.json"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.http.shutdown()
    publisher.http.server_close()


async def test_published_keys_are_fetched_once_and_again_for_a_new_one(
    site: Site, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = await register_client(site.services.pool, name="published", scopes=["system/*.rs"], jwks_uri=publisher.url)
    for _ in range(3):
        assert (await ask(site, assertion(published, header={"jku": publisher.url}))).status_code == 200
    assert publisher.asked == 1
    publisher.body = jwks(EC)
    assert "no key of this id" in refused(await ask(site, assertion(published, EC, "ES384")), "invalid_client")
    assert publisher.asked == 1  # not for each request
    monkeypatch.setattr(server.auth.clients, "REFETCH_AT_MOST_EVERY_S", 0.0)
    assert (await ask(site, assertion(published, EC, "ES384"))).status_code == 200
    assert publisher.asked == 2
    refused(await ask(site, assertion(published)), "invalid_client")  # the old key is gone


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, ""), (302, jwks(RSA)), (200, "no JSON"), (200, "{}"), (200, '{"keys": []}'), (200, '{"keys": 5}'), (200, json.dumps({"keys": [], "x": "y" * 70_000}))],
)
async def test_keys_that_cannot_be_fetched_are_no_keys(site: Site, publisher: Publisher, status: int, body: str) -> None:
    published = await register_client(site.services.pool, name="published", scopes=["system/*.rs"], jwks_uri=publisher.url)
    publisher.status, publisher.body = status, body
    refused(await ask(site, assertion(published)), "invalid_client")


# Registering


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("no JSON", "no JSON Web Key Set"),
        ('{"keys": []}', "no key"),
        (json.dumps({"keys": [RSA.as_dict(private=True)]}), "private"),
        (json.dumps({"keys": [OctKey.generate_key(256, {"kid": "a"}).as_dict(private=True)]}), "private"),
        (jwks(ECKey.generate_key("P-256", {"kid": "a"})), "ES384"),
        (json.dumps({"keys": [{name: value for name, value in RSA.as_dict(private=False).items() if name != "kid"}]}), "id"),
    ],
    ids=["no JSON", "no key", "RSA, private", "symmetric", "of P-256", "without an id"],
)
async def test_keys_that_are_of_no_use_are_not_registered(site: Site, keys: str, said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        await register_client(site.services.pool, name="x", scopes=["system/*.rs"], jwks=keys)


@pytest.mark.parametrize("scopes", [[], ["admin"], ["patient/*.rs"], ["user/*.rs"], ["system/Nonsense.rs"], ["nonsense"]])
async def test_a_client_has_no_scope_of_a_person(site: Site, scopes: list[str]) -> None:
    with pytest.raises(SettingRefused, match="scope"):
        await register_client(site.services.pool, name="x", scopes=scopes, jwks=jwks(RSA))


@pytest.mark.parametrize("uri", ["http://keys.example/jwks.json", "ftp://keys.example/", "https://", "file:///etc/passwd", "http://[::1", "x"])
async def test_keys_are_fetched_over_https_alone(site: Site, uri: str) -> None:
    with pytest.raises(SettingRefused, match="https"):
        await register_client(site.services.pool, name="x", scopes=["system/*.rs"], jwks_uri=uri)


async def test_keys_are_in_one_place(site: Site) -> None:
    for more in ({}, {"jwks": jwks(RSA), "jwks_uri": "https://keys.example/"}):
        with pytest.raises(SettingRefused, match="one of the two"):
            await register_client(site.services.pool, name="x", scopes=["system/*.rs"], **more)


async def test_clients_are_registered_listed_and_revoked_by_command(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = site.services.settings
    assert settings.database_url is not None
    monkeypatch.setenv("ANAMNESIS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("ANAMNESIS_DATABASE_URL", settings.database_url.get_secret_value())
    file = tmp_path / "jwks.json"
    file.write_text(jwks(RSA))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(build(), ["client", *arguments])

    registered = await asyncio.to_thread(run, "register", "by command", "--scope", "system/*.rs?_tag=public", "--jwks", str(file))
    client_id = registered.output.strip()
    assert registered.exit_code == 0, registered
    assert client_id in {one.client_id for one in await list_clients(site.services.pool)}
    answer = await ask(site, assertion(client_id))
    assert answer.json()["scope"] == "system/*.rs?_tag=public"
    listed = await asyncio.to_thread(run, "list")
    assert listed.exit_code == 0
    assert (await asyncio.to_thread(run, "revoke", client_id)).output.strip() == "revoked"
    assert isinstance((await asyncio.to_thread(run, "revoke", client_id)).exception, SettingRefused)
    unusable = await asyncio.to_thread(run, "register", "x", "--scope", "system/*.rs?status=final", "--jwks", str(file))
    assert isinstance(unusable.exception, SettingRefused)


# What is said of it


async def test_the_smart_configuration_is_public_and_true(site: Site, client_id: str) -> None:
    answer = await site.client.get("/fhir/.well-known/smart-configuration")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    said = answer.json()
    assert said["token_endpoint"] == ADDRESS
    assert said["grant_types_supported"] == ["client_credentials"]
    assert said["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert said["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert {"permission-v1", "permission-v2", "permission-patient", "permission-user", "client-confidential-asymmetric"} == set(said["capabilities"])
    assert "system/*.cruds" in said["scopes_supported"] and "authorization_endpoint" not in said
    head = await site.client.head("/fhir/.well-known/smart-configuration")
    assert (head.status_code, head.content) == (200, b"")
    # Whoever asks, with whatever token, is told the same.
    assert (await site.client.get("/fhir/.well-known/smart-configuration", headers={"Authorization": "Bearer x"})).json() == said


async def test_the_capability_statement_says_where_tokens_are(site: Site) -> None:
    statement = (await site.get("/fhir/metadata", "system/Patient.r")).json()
    get_fhir_model_class("CapabilityStatement").model_validate(statement)
    security = statement["rest"][0]["security"]
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert security["extension"][0]["extension"] == [{"url": "token", "valueUri": ADDRESS}]


async def test_the_host_that_a_request_names_is_no_audience(site: Site, client_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without public_url: else whoever passes on an assertion that was made for another server would choose the audience."""
    monkeypatch.setattr(site.services.settings, "public_url", None)
    said = (await site.client.get("/fhir/.well-known/smart-configuration")).json()
    assert "token_endpoint" not in said
    assert "ANAMNESIS_PUBLIC_URL" in refused(await ask(site, assertion(client_id)), "invalid_client")
    form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "scope": "system/*.rs"}
    local = "http://127.0.0.1:8080/auth/token"
    form["client_assertion"] = assertion(client_id, aud=local)
    assert (await site.client.post(local, data=form)).status_code == 200


async def test_assertions_are_kept_as_hashes(site: Site, client_id: str) -> None:
    await ask(site, assertion(client_id, jti="planted-jti"))
    kept = [bytes(row["jti_sha256"]) for row in await site.services.pool.fetch("SELECT jti_sha256 FROM client_assertion")]
    assert hashlib.sha256(b"planted-jti").digest() in kept
