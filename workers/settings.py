"""Every setting of the workers. Read from ANAMNESIS_… variables."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from archive.settings import ArchiveSettings
from eventlog.settings import LogSettings

KNOWN_BROKERS = ("amqp", "amqps", "redis", "rediss")


class WorkerSettings(LogSettings, ArchiveSettings):
    model_config = SettingsConfigDict(env_prefix="ANAMNESIS_", extra="ignore")

    broker_url: SecretStr | None = Field(
        None, description="RabbitMQ (amqp://…) or Redis (redis://…); unset: messages stay in the worker's own process"
    )
    broker_namespace: str = Field("anamnesis", description="Prefix of queues and keys in the broker", pattern=r"^[a-z_][a-z0-9_-]{0,63}$")
    segmenter: str = Field("baseline", description="Which segmenter indexes every series that became complete")
    totalsegmentator_fast: bool = Field(True, description="TotalSegmentator: one model at 3 mm; else five at 1.5 mm, slower and finer")
    totalsegmentator_device: str = Field(
        "cpu", description="TotalSegmentator: cpu, gpu, gpu:1, … or mps", pattern=r"^(cpu|mps|gpu(:\d+)?)$"
    )
    quiet_seconds: float = Field(30.0, description="A series is complete when nothing came for this long", ge=0)
    worker_threads: int = Field(2, description="Series in hand at the same time; one is segmented while others are fetched", ge=1, le=16)
    time_limit_s: float = Field(1500.0, description="How long one attempt to segment a series may take", gt=0)
    max_attempts: int = Field(3, description="Attempts before the failure of a series is recorded", ge=1)
    min_backoff_s: float = Field(5.0, description="Shortest pause before another attempt; it doubles with each", gt=0)
    max_backoff_s: float = Field(600.0, description="Longest pause before another attempt", gt=0)
    resend_after_s: float = Field(
        60.0, description="A request that nobody works on is sent again after this long; it doubles with each time, up to 15 minutes", gt=0
    )
    dispatch_window: int = Field(32, description="Messages of one segmenter and priority in the broker at the same time", ge=1)
    stop_grace_s: float = Field(10.0, description="How long a series in hand may still take when the worker is told to stop", ge=0)
    worker_metrics_port: int | None = Field(None, description="Port for Prometheus on 127.0.0.1; unset: none", ge=0, le=65535)

    @field_validator("broker_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value().partition("://")[0] not in KNOWN_BROKERS:
            raise ValueError("broker_url must begin with amqp://, amqps://, redis:// or rediss://")
        return value
