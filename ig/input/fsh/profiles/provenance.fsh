Profile: LogProvenance
Parent: Provenance
Id: log-provenance
Title: "Provenance of an event"
Description: "One for each event of the log that changed something: what it changed, who acted and on whose behalf, when, and why. Its id is the event's."
* insert Canonical(StructureDefinition, log-provenance)
* insert Projected
* obeys log-entry-both
* extension contains LogEntry named logEntry 2..2
* target ^short = "What changed, at the version that the event made"
* occurred[x] 1..1
* occurred[x] only dateTime
* recorded 1..1
* activity 1..1
* activity.text 1..1
* activity.text ^short = "The event's type, or why in words"
* activity.coding 1..*
* activity.coding ^slicing.discriminator.type = #value
* activity.coding ^slicing.discriminator.path = "system"
* activity.coding ^slicing.rules = #closed
* activity.coding contains lifecycle 1..1 and outcome 0..1
* activity.coding[lifecycle].system 1..1
* activity.coding[lifecycle].system = $Lifecycle
* activity.coding[lifecycle].code 1..1
* activity.coding[outcome].system 1..1
* activity.coding[outcome].system = Canonical(IndexingOutcome)
* activity.coding[outcome].code 1..1
* activity.coding[outcome] from IndexingOutcomes (extensible)
* agent 1..1
* signature.type 1..1
* signature.type from SignatureMeanings (required)
* signature.when 1..1
* signature.who 1..1
* signature.data 1..1
