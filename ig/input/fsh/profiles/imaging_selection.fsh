Profile: SeriesSelection
Parent: ImagingSelection
Id: series-selection
Title: "Series as a selection"
Description: "A whole series as a thing to point at: FHIR cannot refer to a series of an ImagingStudy. It does not change as instances come."
* insert Canonical(StructureDefinition, series-selection)
* insert Projected
* insert IdentifiedBy(urn:dicom:uid)
* identifier obeys dicom-uid
* status = #available
* subject 1..1
* subject only Reference(PseudonymousPatient)
* issued 1..1
* code = $DCM#121232
* derivedFrom 1..1
* derivedFrom only Reference(CuratedStudy)
* studyUid 1..1
* seriesUid 1..1
* instance 0..0
