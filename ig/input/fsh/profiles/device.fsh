Profile: Segmenter
Parent: Device
Id: segmenter
Title: "Segmenter"
Description: "An algorithm as measured where it ran: another version, task, resolution or weights are another Device."
* insert Canonical(StructureDefinition, segmenter)
* insert Projected
* insert IdentifiedBy(urn:anamnesis:segmenter)
* displayName 1..1
* type 1..1
* type = $DCM#123110
* version 1..*
* version ^short = "Each package that took part"
* version.type 1..1
* version.type.text 1..1
* property ^short = "task, weights-sha256 and resolution-mm, as far as it has them"
* property.type.text 1..1
* property.value[x] only string
