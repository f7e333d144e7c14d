Alias: $DCM = http://dicom.nema.org/resources/ontology/DCM
Alias: $SCT = http://snomed.info/sct
Alias: $RadLex = http://www.radlex.org
Alias: $UCUM = http://unitsofmeasure.org
Alias: $ObservationValue = http://terminology.hl7.org/CodeSystem/v3-ObservationValue
Alias: $Lifecycle = http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle
Alias: $SignatureType = urn:iso-astm:E1762-95:2013
Alias: $SourceType = http://terminology.hl7.org/CodeSystem/security-source-type
