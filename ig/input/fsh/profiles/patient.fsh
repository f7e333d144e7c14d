Profile: PseudonymousPatient
Parent: Patient
Id: pseudonymous-patient
Title: "Pseudonymous patient"
Description: "A subject as everybody may see it: a pseudonym and a gender. The pseudonym is the resource's id too."
* insert Canonical(StructureDefinition, pseudonymous-patient)
* insert Projected
* meta.security ^slicing.discriminator.type = #value
* meta.security ^slicing.discriminator.path = "$this"
* meta.security ^slicing.rules = #open
* meta.security contains pseudonymised 1..1
* meta.security[pseudonymised] = $ObservationValue#PSEUDED
* insert IdentifiedBy(urn:anamnesis:subject)
* gender 1..1
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
* generalPractitioner 0..0
* managingOrganization 0..0
