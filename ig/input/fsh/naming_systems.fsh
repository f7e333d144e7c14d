RuleSet: NamingSystem(name, id, uri)
* name = "{name}"
* url = "urn:anamnesis:fhir:NamingSystem:{id}"
* status = #active
* experimental = false
* publisher = "Anamnesis"
* kind = #identifier
* date = "2026-11-21"
* uniqueId.type = #uri
* uniqueId.value = "{uri}"
* uniqueId.preferred = true

Instance: subject
InstanceOf: NamingSystem
Usage: #definition
Title: "Subjects"
* insert NamingSystem(Subject, subject, urn:anamnesis:subject)
* description = "A person's pseudonym at this site; the id of the Patient."

Instance: finding
InstanceOf: NamingSystem
Usage: #definition
Title: "Findings"
* insert NamingSystem(Finding, finding, urn:anamnesis:finding)
* description = "A structure in a series as one segmenter saw it: derived from the series' UID, the segmenter and its label, and the same at every site."

Instance: series-index
InstanceOf: NamingSystem
Usage: #definition
Title: "Indexes of series"
* insert NamingSystem(SeriesIndex, series-index, urn:anamnesis:series-index)
* description = "The index of the findings of a series, by the Series Instance UID."

Instance: segmenter
InstanceOf: NamingSystem
Usage: #definition
Title: "Segmenters"
* insert NamingSystem(Segmenter, segmenter, urn:anamnesis:segmenter)
* description = "An algorithm by the name under which it is installed, whatever its version."

Instance: principal
InstanceOf: NamingSystem
Usage: #definition
Title: "Principals"
* insert NamingSystem(Principal, principal, urn:anamnesis:principal)
* description = "Who acted: a token, a person of the identity provider, a door, a worker, a user of the machine."

Instance: site
InstanceOf: NamingSystem
Usage: #definition
Title: "Sites"
* insert NamingSystem(Site, site, urn:anamnesis:site)
* description = "The installation whose log has the event."

Instance: log-position
InstanceOf: NamingSystem
Usage: #definition
Title: "Positions of the log"
* insert NamingSystem(LogPosition, log-position, urn:anamnesis:log:position)
* description = "The place of an event in the log of its site: dense, from 1."

Instance: log-event
InstanceOf: NamingSystem
Usage: #definition
Title: "Events of the log"
* insert NamingSystem(LogEvent, log-event, urn:anamnesis:log:event)
* description = "The id of an event (UUIDv7); the id of its Provenance too."

Instance: reject
InstanceOf: NamingSystem
Usage: #definition
Title: "Rejected files"
* insert NamingSystem(Reject, reject, urn:anamnesis:reject)
* description = "A file that was refused and kept aside."
