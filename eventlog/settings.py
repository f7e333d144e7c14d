"""Where the log lives and what seals it. Read from the environment (ANAMNESIS_…) and from a .env file in the data folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class LogSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANAMNESIS_", extra="ignore")

    data_dir: Path = Field(
        Path("~/.local/share/anamnesis"), description="Folder of everything that Anamnesis keeps", validate_default=True
    )
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15 or later (postgresql://…); unset: an embedded one in the data folder"
    )
    migration_url: SecretStr | None = Field(
        None, description="The same database as the role that owns the tables; unset: database_url"
    )
    site: str = Field("local", description="Name of this site, the origin of its events", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    key_encryption_key: SecretStr | None = Field(
        None, description="32 bytes in base64 that wrap the subjects' keys; unset: they are in a file"
    )
    key_encryption_key_file: Path | None = Field(
        None, description="File of the key-encryption key, best on another disk; unset: keys/kek in the data folder"
    )
    previous_key_encryption_key: SecretStr | None = Field(
        None, description="The key before that one, while `anamnesis keys rotate` has not replaced it everywhere"
    )
    kms: str | None = Field(
        None, description="Key management service that wraps new key-encryption keys (entry point group anamnesis.kms); unset: none"
    )

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("key_encryption_key_file")
    @classmethod
    def _expand_file(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @property
    def kek_file(self) -> Path:
        return self.key_encryption_key_file or self.data_dir / "keys" / "kek"
