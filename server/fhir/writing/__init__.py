"""Writing through FHIR: what a client asks for becomes decisions of clinical records, and one append for all of them."""
