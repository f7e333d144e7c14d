"""What may happen: events, states and decisions of each aggregate, in pure Python (no I/O, no clock, no SQL, no FHIR)."""
