"""Of an import's rejected rows the first are kept, whatever runs it is stored in."""

from hypothesis import given
from hypothesis import strategies as st

from ingestion_api.imports.kept_rejects import KeptRejects


@given(st.lists(st.integers(0, 40), max_size=30), st.lists(st.integers(1, 29), max_size=3), st.integers(1, 20))
def test_the_first_are_kept_without_gaps(lengths: list[int], cuts: list[int], most_rows: int) -> None:
    rejects = [(n, "code", "", "x" * length) for n, length in enumerate(lengths)]
    ends = sorted({*(cut for cut in cuts if cut < len(rejects)), len(rejects)})
    kept: list[int] = []
    rows = size = start = 0
    for end in ends:  # each run goes on where the one before was cut off
        keeping = KeptRejects(0, 0, most_rows, 100)
        keeping.go_on(rows, size, start)
        kept += [reject[0] for reject in keeping.keep(rejects[start:end])]
        rows, size, start = keeping.rows, keeping.bytes, end
    assert kept == list(range(len(kept)))
    assert rows == len(kept) <= most_rows
    assert size == sum(4 + lengths[n] for n in kept) <= 100
    if len(kept) < min(len(rejects), most_rows):
        assert size + 4 + lengths[len(kept)] > 100
