Invariant: log-entry-system
Description: "It is a position of the log, or the id of an event."
Severity: #error
Expression: "system = 'urn:anamnesis:log:position' or system = 'urn:anamnesis:log:event'"

Invariant: log-entry-both
Description: "It names both its position in the log and its event."
Severity: #error
Expression: "extension.value.where(system = 'urn:anamnesis:log:position').count() = 1 and extension.value.where(system = 'urn:anamnesis:log:event').count() = 1"

Invariant: dicom-uid
Description: "A DICOM UID is written as an OID."
Severity: #error
Expression: "value.startsWith('urn:oid:')"

Invariant: study-counts
Description: "The numbers of series and instances are those of the series and instances listed."
Severity: #error
Expression: "numberOfSeries = series.count() and numberOfInstances = series.instance.count()"

Invariant: index-active
Description: "An index is active when a finding stands in it; otherwise it says in words that there is none."
Severity: #error
Expression: "active = includedStructure.structure.coding.exists()"

Invariant: index-names-findings
Description: "Each finding that stands has an element id of its segmenter and label."
Severity: #error
Expression: "includedStructure.where(structure.coding.exists()).all(id.exists())"

Invariant: outcome-says-why
Description: "What did not succeed says why."
Severity: #error
Expression: "code.code = 'success' or detail.exists()"
