"""FHIR R5 over HTTP: read, vread, history, search, metadata; an OperationOutcome for every error."""
