Extension: LogEntry
Id: log-entry
Title: "Log entry"
Description: "Where in the log it stands: given twice, with the position and with the event's id."
Context: Provenance, AuditEvent
* insert Canonical(StructureDefinition, log-entry)
* value[x] 1..1
* value[x] only Identifier
* valueIdentifier.system 1..1
* valueIdentifier obeys log-entry-system
* valueIdentifier.value 1..1
