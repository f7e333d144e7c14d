"""What has happened: the append-only log of events in PostgreSQL, and the vault that seals what identifies a person."""
