Profile: AccessAuditEvent
Parent: AuditEvent
Id: access-audit-event
Title: "Access"
Description: "Who looked at what: one for all alike accesses of a second, after the patterns of IHE BALP. Names of search parameters, never their values."
* insert Canonical(StructureDefinition, access-audit-event)
* insert Projected
* obeys log-entry-both
* extension contains LogEntry named logEntry 2..2 and AccessCount named accessCount 1..1
* category 1..1
* code.text 1..1
* action 1..1
* occurred[x] 1..1
* occurred[x] only Period
* occurredPeriod.start 1..1
* occurredPeriod.end 1..1
* outcome 1..1
* outcome obeys outcome-says-why
* agent 1..2
* agent ^short = "Who looked; a second one is on whose behalf"
* agent.who.identifier 1..1
* agent.who.identifier.system 1..1
* agent.who.identifier.system = "urn:anamnesis:principal"
* agent.requestor 1..1
* source.observer.identifier 1..1
* source.observer.identifier.system 1..1
* source.observer.identifier.system = "urn:anamnesis:site"
* source.type 1..1
* source.type = $SourceType#4
* patient only Reference(PseudonymousPatient)
* entity.role 1..1
* entity.query ^short = "What was searched by: the type and the names of parameters, as JSON"
