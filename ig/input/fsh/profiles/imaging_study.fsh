Profile: CuratedStudy
Parent: ImagingStudy
Id: curated-study
Title: "Curated study"
Description: "A study with all its series and instances. Its id is derived from the Study Instance UID, so it is the same at every site."
* insert Canonical(StructureDefinition, curated-study)
* insert Projected
* obeys study-counts
* insert IdentifiedBy(urn:dicom:uid)
* identifier obeys dicom-uid
* subject only Reference(PseudonymousPatient)
* numberOfSeries 1..1
* numberOfInstances 1..1
* modality.coding 1..1
* modality.coding.system 1..1
* modality.coding.system = $DCM
* modality.coding.code 1..1
* series.modality.coding 1..1
* series.modality.coding.system 1..1
* series.modality.coding.system = $DCM
* series.modality.coding.code 1..1
* series.numberOfInstances 1..1
* series.bodySite ^short = "The index of the findings of this series, once it was indexed"
* series.bodySite only CodeableReference(SeriesIndex)
* series.bodySite.concept 0..0
* series.bodySite.reference 1..1
* series.instance 1..*
