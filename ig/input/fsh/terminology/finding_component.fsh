CodeSystem: FindingComponent
Id: finding-component
Title: "Components of a finding's measurement"
Description: "What is stated of a finding for which no other code was found."
* insert Canonical(CodeSystem, finding-component)
* ^content = #complete
* ^caseSensitive = true
* #touches-edge "Touches the edge of the field of view" "The structure goes on outside the images, so its volume is that of a part."
* #voxel-count "Number of voxels" "Voxels of the segmentation that are in the structure."

ValueSet: FindingComponents
Id: finding-components
Title: "Components of a finding's measurement"
Description: "All that is measured of a finding."
* insert Canonical(ValueSet, finding-components)
* ^copyright = "Holds content of SNOMED CT, which is copyright of SNOMED International."
* include codes from system FindingComponent
* $SCT#118565006 "Volume"
* $DCM#112181 "Mean Attenuation Coefficient"
