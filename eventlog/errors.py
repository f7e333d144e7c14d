"""What can go wrong with the log, by name."""

from __future__ import annotations


class EventLogError(Exception):
    """The root of the log's errors."""


class VersionConflict(EventLogError):
    """Raised when a stream is not at the version that an append expects: load it again and decide again."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream} is at version {actual}, not at {expected}")
        self.stream = stream
        self.expected = expected
        self.actual = actual


class EventIdReused(EventLogError):
    """Raised when an event id is already in the log with another content."""


class EventTooLarge(EventLogError):
    """Raised when the data of one event exceed what the log stores in one row."""


class LogUnavailable(EventLogError):
    """Raised when PostgreSQL did not answer in time. Nothing is lost: append again with the same event ids."""


class UnknownEventType(EventLogError):
    """Raised when the log holds an event type, or a schema version, that the running code does not know."""

    def __init__(self, event_type: str, schema_version: int, position: int) -> None:
        super().__init__(
            f"event type {event_type} (schema version {schema_version}) at position {position} is not known to this version"
        )
        self.event_type = event_type
        self.schema_version = schema_version
        self.position = position


class KeyEncryptionKeyMissing(EventLogError):
    """Raised when there is no key-encryption key: run `anamnesis init`, or set ANAMNESIS_KEY_ENCRYPTION_KEY."""


class KeyEncryptionKeyWrong(EventLogError):
    """Raised when the key-encryption key does not open what was wrapped in this database."""


class KmsUnknown(EventLogError):
    """Raised when a key management service is named that no installed package gives."""


class KmsFailed(EventLogError):
    """Raised when a key management service does not wrap, or does not unwrap: mend it, and start again."""


class RotationUnderway(EventLogError):
    """Raised when two rotations of the key-encryption key are asked for at once."""


class NothingToRotate(EventLogError):
    """Raised when every secret is under the only key-encryption key that there is."""


class SubjectKeyDestroyed(EventLogError):
    """Raised when something is to be sealed for a subject whose key was destroyed."""


class SealBroken(EventLogError):
    """Raised when the sealed part of an event does not authenticate: it was altered, or belongs to another event."""


class SchemaOutdated(EventLogError):
    """Raised when the database's schema is not the one that the running code needs: run `anamnesis db upgrade`."""


class HalfRestored(EventLogError):
    """Raised when a restore into this database was begun and has not ended: run the same `anamnesis restore` again."""


class EmbeddedDatabaseFailed(EventLogError):
    """Raised when the embedded PostgreSQL could not be started; its log says why."""


class ServerTooOld(EventLogError):
    """Raised when PostgreSQL is older than 15."""


class NoteMalformed(EventLogError):
    """Raised when a signed note, a checkpoint or a verification key is not of the form that C2SP gives it."""


class SealRefused(EventLogError):
    """Raised when the sealer will not sign: the log or its tree is not what the last checkpoint says. Run `anamnesis audit check`."""


class NotSealed(EventLogError):
    """Raised when a proof is asked of a position, or a size, that no checkpoint covers yet."""
