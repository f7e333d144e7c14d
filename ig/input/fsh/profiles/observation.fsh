Profile: FindingMeasurement
Parent: Observation
Id: finding-measurement
Title: "Measurement of a finding"
Description: "What was measured of one finding: volume, mean attenuation, voxels, and whether the field of view cuts it. Preliminary until a person reviewed it."
* insert Canonical(StructureDefinition, finding-measurement)
* insert Projected
* insert AssertedByMachine
* insert IdentifiedBy(urn:anamnesis:finding)
* identifier ^short = "The finding's key, as on its BodyStructure"
* partOf 1..1
* partOf only Reference(CuratedStudy)
* status from FindingStatus (required)
* code = $DCM#125007
* subject 1..1
* subject only Reference(PseudonymousPatient)
* focus 1..1
* focus only Reference(SeriesSelection)
* effective[x] 1..1
* effective[x] only dateTime
* value[x] 0..0
* bodySite 0..0
* bodyStructure 1..1
* bodyStructure only Reference(FindingStructure)
* device 1..1
* device only Reference(Segmenter)
* component ^slicing.discriminator.type = #value
* component ^slicing.discriminator.path = "code"
* component ^slicing.rules = #closed
* component contains volume 1..1 and meanAttenuation 1..1 and touchesEdge 1..1 and voxelCount 1..1
* component[volume].code = $SCT#118565006
* component[volume].value[x] 1..1
* component[volume].value[x] only Quantity
* component[volume].valueQuantity = $UCUM#mm3
* component[volume].valueQuantity.value 1..1
* component[meanAttenuation].code = $DCM#112181
* component[meanAttenuation].value[x] 1..1
* component[meanAttenuation].value[x] only Quantity
* component[meanAttenuation].valueQuantity = $UCUM#[hnsf'U]
* component[meanAttenuation].valueQuantity.value 1..1
* component[touchesEdge].code = FindingComponent#touches-edge
* component[touchesEdge].value[x] 1..1
* component[touchesEdge].value[x] only boolean
* component[voxelCount].code = FindingComponent#voxel-count
* component[voxelCount].value[x] 1..1
* component[voxelCount].value[x] only Quantity
* component[voxelCount].valueQuantity = $UCUM#1
* component[voxelCount].valueQuantity.value 1..1
