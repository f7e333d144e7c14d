Extension: AccessCount
Id: access-count
Title: "Access count"
Description: "How many alike accesses of one second this AuditEvent stands for."
Context: AuditEvent
* insert Canonical(StructureDefinition, access-count)
* value[x] 1..1
* value[x] only positiveInt
