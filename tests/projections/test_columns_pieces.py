"""Arrays looked at piece by piece give what they give at once, whatever their length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.columns import pieces


@given(st.lists(st.integers(-1, 9), max_size=40), st.sampled_from([np.int32, np.uint8]), st.integers(1, 7), st.data())
def test_pieces_give_what_the_whole_gives(codes: list[int], dtype: type, piece: int, data: st.DataObject) -> None:
    array = np.array([max(code, 0) for code in codes] if dtype is np.uint8 else codes, dtype)
    places = np.array(data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=30)) if codes else [], np.int64)
    table = np.arange(11) * 7
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pieces, "PIECE", piece)
        found, counts = pieces.taken(table, array), pieces.counted(array, places, 11)
    assert found.tolist() == [int(table[code]) for code in array]
    assert counts.tolist() == [sum(int(array[place]) % 11 == code for place in places) for code in range(11)]
