// A definition's canonical URL is a URN: it names the thing wherever the server stands.
RuleSet: Canonical(type, id)
* ^url = "urn:anamnesis:fhir:{type}:{id}"
* ^publisher = "Anamnesis"
* ^experimental = false

// What every projected resource has: a version, and when it was made.
RuleSet: Projected
* id 1..1
* meta 1..1
* meta.versionId 1..1
* meta.lastUpdated 1..1

// Made by a machine.
RuleSet: AssertedByMachine
* meta.security ^slicing.discriminator.type = #value
* meta.security ^slicing.discriminator.path = "$this"
* meta.security ^slicing.rules = #open
* meta.security contains assertedByMachine 1..1
* meta.security[assertedByMachine] = $ObservationValue#AIAST

// One identifier, in one of our systems.
RuleSet: IdentifiedBy(system)
* identifier 1..1
* identifier.system 1..1
* identifier.system = "{system}"
* identifier.value 1..1
