"""Where the archive keeps its files."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ArchiveSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ANAMNESIS_", extra="ignore")

    data_dir: Path = Field(
        Path("~/.local/share/anamnesis"), description="Folder of everything that Anamnesis keeps", validate_default=True
    )
    archive_url: str | None = Field(
        None, description="Where instances are kept (a folder, or s3://bucket/prefix); unset: archive/ in the data folder"
    )

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def rejects_dir(self) -> Path:
        return self.data_dir / "rejects"

    @property
    def store_url(self) -> str:
        return self.archive_url or str(self.data_dir / "archive")
