ValueSet: Sides
Id: sides
Title: "Sides"
Description: "Left and right."
* insert Canonical(ValueSet, sides)
* ^copyright = "Holds content of SNOMED CT, which is copyright of SNOMED International."
* $SCT#7771000 "Left"
* $SCT#24028007 "Right"

ValueSet: FindingStatus
Id: finding-status
Title: "Status of a finding's measurement"
Description: "Preliminary until reviewed, final when accepted, corrected when it stands again, entered in error when rejected or not found any more."
* insert Canonical(ValueSet, finding-status)
* http://hl7.org/fhir/observation-status#preliminary
* http://hl7.org/fhir/observation-status#final
* http://hl7.org/fhir/observation-status#amended
* http://hl7.org/fhir/observation-status#corrected
* http://hl7.org/fhir/observation-status#entered-in-error

ValueSet: SignatureMeanings
Id: signature-meanings
Title: "Meanings of a signature"
Description: "What a signer may state by a signature (21 CFR 11.50 (a)(3)), in the codes of ASTM E1762."
* insert Canonical(ValueSet, signature-meanings)
* $SignatureType#1.2.840.10065.1.12.1.1 "Author's Signature"
* $SignatureType#1.2.840.10065.1.12.1.5 "Verification Signature"
* $SignatureType#1.2.840.10065.1.12.1.6 "Validation Signature"
* $SignatureType#1.2.840.10065.1.12.1.13 "Review Signature"
