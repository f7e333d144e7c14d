Profile: FindingStructure
Parent: BodyStructure
Id: finding-structure
Title: "Finding"
Description: "One structure in one series as one segmenter saw it. Indexing again makes another version of it; what was rejected or is not found any more is not active."
* insert Canonical(StructureDefinition, finding-structure)
* insert Projected
* insert AssertedByMachine
* insert IdentifiedBy(urn:anamnesis:finding)
* active 1..1
* description 1..1
* description ^short = "The segmenter's label"
* includedStructure 1..1
* includedStructure.structure.text 1..1
* includedStructure.structure.coding 1..*
* includedStructure.structure.coding ^slicing.discriminator.type = #value
* includedStructure.structure.coding ^slicing.discriminator.path = "system"
* includedStructure.structure.coding ^slicing.rules = #open
* includedStructure.structure.coding contains snomed 1..1 and radlex 0..1
* includedStructure.structure.coding[snomed].system 1..1
* includedStructure.structure.coding[snomed].system = $SCT
* includedStructure.structure.coding[snomed].code 1..1
* includedStructure.structure.coding[snomed] ^short = "The structure whatever its side; the side is the laterality"
* includedStructure.structure.coding[radlex].system 1..1
* includedStructure.structure.coding[radlex].system = $RadLex
* includedStructure.structure.coding[radlex].code 1..1
* includedStructure.laterality from Sides (required)
* excludedStructure 0..0
* patient only Reference(PseudonymousPatient)

Profile: SeriesIndex
Parent: BodyStructure
Id: series-index
Title: "Index of a series"
Description: "Every finding that stands in one series, by whichever segmenter: what ImagingStudy.series.bodySite points at, and what a chained search by structure goes through."
* insert Canonical(StructureDefinition, series-index)
* insert Projected
* obeys index-active and index-names-findings
* insert AssertedByMachine
* insert IdentifiedBy(urn:anamnesis:series-index)
* active 1..1
* includedStructure ^short = "A finding that stands; its element id is segmenter and label, joined by a point"
* includedStructure.structure.text 1..1
* includedStructure.laterality from Sides (required)
* excludedStructure 0..0
* patient only Reference(PseudonymousPatient)
