Profile: PseudonymousPatient
Parent: Patient
Id: pseudonymous-patient
Title: "Pseudonymous patient"
Description: "A subject as everybody may see it: a pseudonym, which is the resource's id too, a gender, and references without words."
* insert Canonical(StructureDefinition, pseudonymous-patient)
* insert Projected
* meta.security ^slicing.discriminator.type = #value
* meta.security ^slicing.discriminator.path = "$this"
* meta.security ^slicing.rules = #open
* meta.security contains pseudonymised 1..1
* meta.security[pseudonymised] = $ObservationValue#PSEUDED
* insert IdentifiedBy(urn:anamnesis:subject)
* text 0..0
* name 0..0
* telecom 0..0
* birthDate 0..0
* deceased[x] 0..0
* address 0..0
* maritalStatus 0..0
* multipleBirth[x] 0..0
* photo 0..0
* contact 0..0
* communication 0..0
* generalPractitioner.display 0..0
* generalPractitioner.identifier 0..0
* managingOrganization.display 0..0
* managingOrganization.identifier 0..0
* link.other.display 0..0
* link.other.identifier 0..0
