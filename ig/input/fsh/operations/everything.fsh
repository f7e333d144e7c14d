Instance: ImagingStudy-everything
InstanceOf: OperationDefinition
Usage: #definition
Title: "Everything of a study"
* url = "urn:anamnesis:fhir:OperationDefinition:ImagingStudy-everything"
* name = "ImagingStudyEverything"
* status = #active
* experimental = false
* publisher = "Anamnesis"
* description = "A study, its series, what was found in them and measured, who did it and from what: all that refers to the study or to these, and what they refer to, of its own patient alone. R5 has such an operation for other types."
* kind = #operation
* affectsState = false
* code = #everything
* resource = #ImagingStudy
* system = false
* type = false
* instance = true
* parameter[+].name = #_since
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "1"
* parameter[=].documentation = "Only what changed at this instant or later."
* parameter[=].type = #instant
* parameter[+].name = #_type
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "*"
* parameter[=].documentation = "Only resources of these types."
* parameter[=].type = #code
* parameter[+].name = #_count
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "1"
* parameter[=].documentation = "Resources on a page."
* parameter[=].type = #integer
* parameter[+].name = #_asof
* parameter[=].use = #in
* parameter[=].min = 0
* parameter[=].max = "1"
* parameter[=].documentation = "The position of the log, or the instant or date (its end), as of which to answer."
* parameter[=].type = #string
* parameter[+].name = #return
* parameter[=].use = #out
* parameter[=].min = 1
* parameter[=].max = "1"
* parameter[=].documentation = "A searchset, in pages as of one position."
* parameter[=].type = #Bundle
