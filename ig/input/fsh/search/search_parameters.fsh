RuleSet: SearchParameter(id, name, code, base, type)
* name = "{name}"
* url = "urn:anamnesis:fhir:SearchParameter:{id}"
* status = #active
* experimental = false
* publisher = "Anamnesis"
* code = #{code}
* base = #{base}
* type = #{type}

Instance: BodyStructure-structure-laterality
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(BodyStructure-structure-laterality, BodyStructureStructureLaterality, structure-laterality, BodyStructure, token)
* description = "The side of a structure that is included"
* processingMode = #normal
* expression = "BodyStructure.includedStructure.laterality"

Instance: BodyStructure-active
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(BodyStructure-active, BodyStructureActive, active, BodyStructure, token)
* description = "Whether the structure stands"
* processingMode = #normal
* expression = "BodyStructure.active"

Instance: ImagingSelection-series-uid
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(ImagingSelection-series-uid, ImagingSelectionSeriesUid, series-uid, ImagingSelection, token)
* description = "The Series Instance UID from which images were selected"
* processingMode = #normal
* expression = "ImagingSelection.seriesUid"

Instance: Observation-body-structure
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Observation-body-structure, ObservationBodyStructure, body-structure, Observation, reference)
* description = "The structure that was observed. Chained with included_structure it finds measurements by anatomy."
* processingMode = #normal
* expression = "Observation.bodyStructure"
* target[+] = #BodyStructure
* target[+] = #Group

Instance: Observation-body-site
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Observation-body-site, ObservationBodySite, body-site, Observation, token)
* description = "The part of the body that was observed, where it is said by a code"
* processingMode = #normal
* expression = "Observation.bodySite"

Instance: Observation-volume
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Observation-volume, ObservationVolume, volume, Observation, quantity)
* description = "The volume of a finding: stored in mm3, found in any unit of volume"
* processingMode = #normal
* expression = "Observation.component.where(code.coding.code = '118565006').value.ofType(Quantity)"

Instance: Observation-structure-volume
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Observation-structure-volume, ObservationStructureVolume, structure-volume, Observation, composite)
* description = "The structure that was observed and its volume"
* processingMode = #normal
* expression = "Observation"
* multipleOr = false
* component[+].definition = "urn:anamnesis:fhir:SearchParameter:Observation-body-structure"
* component[=].expression = "bodyStructure"
* component[+].definition = "urn:anamnesis:fhir:SearchParameter:Observation-volume"
* component[=].expression = "component.where(code.coding.code = '118565006').value.ofType(Quantity)"

Instance: Provenance-agent-identifier
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Provenance-agent-identifier, ProvenanceAgentIdentifier, agent-identifier, Provenance, token)
* description = "Who acted, by identifier: principals are no resources here"
* processingMode = #normal
* expression = "Provenance.agent.who.identifier"

Instance: Resource-asof
InstanceOf: SearchParameter
Usage: #definition
* insert SearchParameter(Resource-asof, ResourceAsof, _asof, Resource, special)
* description = "The position of the log (digits), or the instant or date (its end), as of which to answer. Serves read, vread and history too."
