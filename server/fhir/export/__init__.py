"""Bulk Data Export (HL7 FHIR Bulk Data Access 2.0): kept, made, served, and taken away again."""
