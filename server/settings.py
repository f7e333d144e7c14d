"""Every setting of the server. Read from ANAMNESIS_… variables; `anamnesis settings` lists them."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from archive.settings import ArchiveSettings
from eventlog.settings import LogSettings
from server.errors import SettingRefused

_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")
"""As browsers write it (RFC 6454): in lower case, without a path."""


class ServerSettings(LogSettings, ArchiveSettings):
    model_config = SettingsConfigDict(env_prefix="ANAMNESIS_", extra="ignore")

    http_host: str = Field("127.0.0.1", description="Address for FHIR, DICOMweb and health")
    http_port: int = Field(8080, description="Port for HTTP", ge=0, le=65535)
    tls_certificate: Path | None = Field(None, description="Certificate chain (PEM) for HTTPS")
    tls_key: Path | None = Field(None, description="Private key (PEM) for HTTPS")
    public_url: str | None = Field(None, description="How clients reach the server; unset: from the request")
    dimse_host: str = Field("127.0.0.1", description="Address for C-STORE and C-ECHO")
    dimse_port: int = Field(11112, description="Port for C-STORE and C-ECHO", ge=0, le=65535)
    dimse_lane: Literal["fast", "pynetdicom"] = Field("fast", description="How C-STORE payloads are received")
    dimse_tls_certificate: Path | None = Field(None, description="Certificate chain (PEM) for DICOM over TLS")
    dimse_tls_key: Path | None = Field(None, description="Private key (PEM) for DICOM over TLS")
    dimse_tls_ca: Path | None = Field(None, description="Certificates (PEM) that senders must be signed by")
    ae_title: str = Field("ANAMNESIS", description="Our application entity title", min_length=1, max_length=16)
    allowed_ae_titles: list[str] = Field([], description="Calling AE titles that may store (JSON list); empty: any, from loopback alone")
    max_associations: int = Field(32, description="Associations at the same time", ge=1)
    allow_plain_text_beyond_loopback: bool = Field(False, description="Serve without TLS on other than loopback addresses")
    seal_every_s: float = Field(10.0, description="A signed checkpoint of the log this often (seconds), while events come", gt=0, le=60)
    allowed_origins: list[str] = Field([], description="Origins of web pages whose scripts may ask (JSON list, as https://viewer.example); empty: none")
    oidc_issuer: str | None = Field(None, description="OpenID Connect issuer whose JWTs are accepted")
    oidc_audience: str | None = Field(None, description="Audience that such JWTs must name")
    audit_reads: bool = Field(True, description="Record in the log who reads, searches, logs in and is refused")
    fhir_validation: Literal["off", "warn", "enforce"] = Field(
        "off", description="Whether what clients write in FHIR is validated beyond its structure: errors are logged (warn) or refused (enforce)"
    )
    fhir_deadline_s: float = Field(60.0, description="How long a FHIR read or search may take before it is ended and refused (seconds)", gt=0, le=3600)
    fhir_exports: int = Field(4, description="Bulk Data exports that are made at the same time; more are refused (429)", ge=1)
    fhir_export_keep_hours: float = Field(24.0, description="How long the files of a finished export are kept (hours)", gt=0)
    dataset_exports: int = Field(2, description="Exports of datasets that are made at the same time; more are refused (429)", ge=1)
    dataset_export_keep_hours: float = Field(168.0, description="How long the files of a finished export of a dataset are kept (hours)", gt=0)
    graphql_max_cost: int = Field(100_000, description="Values that one GraphQL answer may hold at most, pages taken as full", ge=100)
    graphql_max_depth: int = Field(16, description="GraphQL fields within fields", ge=4, le=50)
    graphql_deadline_s: float = Field(30.0, description="How long a GraphQL query may take before it is ended and refused (seconds)", gt=0, le=3600)
    graphql_persisted_dir: Path | None = Field(None, description="Folder of GraphQL documents (*.graphql) that clients may name by their SHA-256")
    graphql_only_persisted: bool = Field(False, description="Answer no GraphQL documents but those of graphql_persisted_dir")
    cohort_columns: bool = Field(True, description="Keep columns of series, findings and facts in memory, by which cohorts are counted; else PostgreSQL counts")
    cohort_columns_mb: int | None = Field(None, description="Give the columns up when their arrays take more memory than this (MiB); unset: never", ge=1)
    cohort_snapshot_every_s: float = Field(600.0, description="How often the columns are kept on disk for the next start (seconds)", gt=0)
    patient_id_systems: dict[str, str] = Field(
        {},
        description="Issuer of Patient ID in DICOM → system of the same numbers in FHIR (JSON object; an empty issuer: where images name none)",
    )
    intake_linger_s: float = Field(0.5, description="How long instances of a series are gathered for one event while an association lasts", ge=0, le=10)

    @field_validator("patient_id_systems")
    @classmethod
    def _one_system_an_issuer(cls, systems: dict[str, str]) -> dict[str, str]:
        if len(set(systems.values())) < len(systems) or not all(systems.values()):
            raise ValueError("each issuer has a system of its own")
        return {issuer.strip(): system for issuer, system in systems.items()}

    def refuse_unsafe(self) -> None:
        """Raises SettingRefused where data would travel in the clear beyond this machine, or anybody could store."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingRefused("tls_certificate and tls_key go together: set both, or neither")
        if (self.dimse_tls_certificate is None) != (self.dimse_tls_key is None):
            raise SettingRefused("dimse_tls_certificate and dimse_tls_key go together: set both, or neither")
        for name in ("tls_certificate", "tls_key", "dimse_tls_certificate", "dimse_tls_key", "dimse_tls_ca"):
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise SettingRefused(f"{name}={file} is not a file")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingRefused(f"allowed_origins={origin} is no origin: write scheme, host and port alone, as https://viewer.example")
        for name, host, secure in (
            ("http_host", self.http_host, self.tls_certificate is not None),
            ("dimse_host", self.dimse_host, self.dimse_tls_certificate is not None),
        ):
            if not is_loopback(host) and not secure and not self.allow_plain_text_beyond_loopback:
                raise SettingRefused(
                    f"{name}={host} is not a loopback address and there is no TLS: set a certificate and key,"
                    " or ANAMNESIS_ALLOW_PLAIN_TEXT_BEYOND_LOOPBACK=true"
                )
        if not is_loopback(self.dimse_host) and not self.allowed_ae_titles:
            raise SettingRefused("beyond loopback, allowed_ae_titles must name who may store")


def is_loopback(host: str) -> bool:
    """Whether an address, or every address of a name, is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        return all(ipaddress.ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host, None))
    except OSError:
        return False
