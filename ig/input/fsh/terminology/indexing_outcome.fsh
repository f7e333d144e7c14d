CodeSystem: IndexingOutcome
Id: indexing-outcome
Title: "Why, and with what outcome"
Description: "The second code of a Provenance's activity: why a series was not indexed or a file refused, why indexing was asked for, a review's verdict and a signature's meaning. Segmenters may name further reasons."
* insert Canonical(CodeSystem, indexing-outcome)
* ^content = #fragment
* ^caseSensitive = true
* #quiet "No more instances came" "Indexing was requested since the series had been quiet for the set time."
* #requested "Somebody asked" "Indexing was requested by a person or a program."
* #failed "Failed" "Indexing failed for a reason that does not lie in the series."
* #not-ct "No CT" "The segmenter takes CT alone."
* #localizer "Localizer" "The series is a localizer."
* #too-few-slices "Too few slices" "The series is no volume that could be segmented."
* #missing-slices "Missing slices" "There is a gap between slices."
* #duplicate-positions "Duplicate positions" "Two slices have the same position."
* #mixed-orientations "Mixed orientations" "The slices do not lie parallel."
* #mixed-geometry "Mixed geometry" "The slices differ in size or pixel spacing."
* #gantry-tilt "Gantry tilt" "The slices are sheared against each other."
* #no-geometry "No geometry" "Position, orientation or spacing is missing or unusable."
* #not-hu "No Hounsfield units" "The pixels cannot be made Hounsfield units."
* #undecodable-pixels "Undecodable pixels" "The pixels cannot be decoded."
* #not-dicom "No DICOM file" "The file that came is no DICOM file."
* #truncated "Truncated" "The file that came ends too early."
* #missing-uid "Missing UID" "The file that came lacks a UID."
* #unreadable "Unreadable" "The file that came cannot be read as DICOM."
* #other-study "Other study" "The instance was sent to another study than its own."
* #subject-erased "Subject erased" "The person was erased, and what comes of it is refused."
* #accepted "Accepted" "The verdict of a review: the finding stands."
* #rejected "Rejected" "The verdict of a review: the finding is wrong."
* #authorship "Authorship" "The meaning of a signature: the signer made it."
* #review "Review" "The meaning of a signature: the signer reviewed it."
* #approval "Approval" "The meaning of a signature: the signer approves it."
* #responsibility "Responsibility" "The meaning of a signature: the signer answers for it."

ValueSet: IndexingOutcomes
Id: indexing-outcomes
Title: "Why, and with what outcome"
Description: "The reasons, verdicts and meanings that are known."
* insert Canonical(ValueSet, indexing-outcomes)
* include codes from system IndexingOutcome
