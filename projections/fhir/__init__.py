"""FHIR R5: every version of every resource that the log implies, with the range of positions for which it held."""
