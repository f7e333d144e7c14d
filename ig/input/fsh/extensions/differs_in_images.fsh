Extension: DiffersInImages
Id: differs-in-images
Title: "Differs in images"
Description: "What images say of the person where it is another than what a client says, whose word stands in the Patient."
Context: Patient
* insert Canonical(StructureDefinition, differs-in-images)
* extension contains gender 0..1 and birthDate 0..1
* extension[gender].value[x] 1..1
* extension[gender].value[x] only code
* extension[gender].valueCode from http://hl7.org/fhir/ValueSet/administrative-gender (required)
* extension[birthDate].value[x] 1..1
* extension[birthDate].value[x] only date
