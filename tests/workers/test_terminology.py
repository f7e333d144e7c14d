"""Every class has a structure code and the right side; each published error is mended."""

from __future__ import annotations

import pytest
from totalsegmentator.map_to_binary import class_map

from domain.findings import Laterality
from workers.terminology import structures


def test_all_117_classes_are_there() -> None:
    assert set(structures()) == set(class_map["total"].values()) and len(structures()) == 117


def test_the_side_of_a_label_is_beside_its_concept() -> None:
    for label, structure in structures().items():
        side = Laterality.LEFT if "_left" in label else Laterality.RIGHT if "_right" in label else None
        assert structure.laterality is side, label


def test_left_and_right_share_one_base_concept() -> None:
    for label, structure in structures().items():
        if "_left" in label and (other := structures().get(label.replace("_left", "_right"))) is not None:
            assert structure.snomed == other.snomed, label


def test_no_two_structures_are_the_same() -> None:
    seen = [(s.snomed.code, s.laterality, s.morphology) for s in structures().values()]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("label", "snomed", "laterality"),
    [
        ("femur_right", "71341001", Laterality.RIGHT),
        ("femur_left", "71341001", Laterality.LEFT),
        ("kidney_cyst_left", "64033007", Laterality.LEFT),
        ("kidney_cyst_right", "64033007", Laterality.RIGHT),
        ("rib_right_3", "25888004", Laterality.RIGHT),
        ("gluteus_maximus_left", "206007", Laterality.LEFT),
        ("gluteus_minimus_right", "75297007", Laterality.RIGHT),
        ("autochthon_left", "244849004", Laterality.LEFT),
        ("iliopsoas_right", "68455001", Laterality.RIGHT),
        ("hip_left", "28254004", Laterality.LEFT),
        ("hip_right", "28254004", Laterality.RIGHT),
        ("atrial_appendage_left", "68786006", Laterality.LEFT),
        ("pulmonary_vein", "122972007", None),
        ("sacrum", "54735007", None),
        ("vertebrae_S1", "65985001", None),
        ("brachiocephalic_vein_left", "8887007", Laterality.LEFT),
        ("subclavian_artery_left", "36765005", Laterality.LEFT),
        ("subclavian_artery_right", "36765005", Laterality.RIGHT),
    ],
)
def test_published_errors_are_mended(label: str, snomed: str, laterality: Laterality | None) -> None:
    structure = structures()[label]
    assert (structure.snomed.code, structure.laterality) == (snomed, laterality)


def test_a_radlex_code_is_one_code_for_one_structure_or_absent() -> None:
    for label, structure in structures().items():
        if structure.radlex is not None:
            assert structure.radlex.code.startswith("RID") and structure.radlex.code[3:].isdigit(), label
    assert structures()["portal_vein_and_splenic_vein"].radlex is None and structures()["rib_left_1"].radlex is None
    assert structures()["iliac_artery_left"].radlex is None and structures()["iliac_vena_right"].radlex is None


def test_a_cyst_is_a_morphology_of_the_kidney() -> None:
    cyst = structures()["kidney_cyst_left"]
    assert cyst.morphology is not None and cyst.morphology.code == "367643001"
    assert [label for label, s in structures().items() if s.morphology is not None] == ["kidney_cyst_left", "kidney_cyst_right"]
