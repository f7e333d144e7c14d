"""What can go wrong with backups, by name."""

from __future__ import annotations

from server.errors import ServerError


class BackupError(ServerError):
    """The root of the backups' errors."""


class BackupRuns(BackupError):
    """Raised when another backup of this log is being made."""


class BackupNotFound(BackupError):
    """Raised when a destination holds no backup, or none at or before the position that was asked for."""


class BackupDamaged(BackupError):
    """Raised when a file of a backup is missing, or is not what it was when it was written; the message names it."""


class BackupOfAnotherSite(BackupError):
    """Raised when a destination holds the backups of another log: give each a destination of its own."""


class BackupOfNewerVersion(BackupError):
    """Raised when a backup was made by a newer version of Anamnesis: restore it with that one."""


class LogTookAnotherCourse(BackupError):
    """Raised when the log is not the continuation of what was backed up (it was restored to an earlier position, or altered)."""


class LogNotAsSealed(BackupError):
    """Raised when the log, or its newest checkpoint, is not what the site signed."""


class ObjectsMissing(BackupError):
    """Raised when the log names instances that the archive does not hold whole; their digests are in the message."""


class TargetNotEmpty(BackupError):
    """Raised when a restore would write over something; the message says what is there."""
