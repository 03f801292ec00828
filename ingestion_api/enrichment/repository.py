"""Statements that find, link and hold back near duplicates; `links` runs them."""

from core.near_duplicates import lock_of
from ingestion_api.enrichment.similarity import BAND_TEXTS

LOCK_DATASETS = f"select {lock_of('name')} from unnest(%s::text[]) as names (name)"  # noqa: S608 - constants only

FIND_CANDIDATES = f"""
    select wanted.id, found.text_id, count(*)
    from unnest(%s::uuid[], %s::int8[]) as wanted (id, band)
    cross join lateral (
        select text_id from near_duplicate_bands as known
        where known.band = wanted.band order by place limit {BAND_TEXTS}
    ) as found
    group by wanted.id, found.text_id
"""  # noqa: S608 - constants only

READ_TEXTS = "select id, text, status = any(%s) from texts where id = any(%s)"

INSERT_LINKS = """
    insert into near_duplicates (text_id, twin_id, similarity)
    select * from unnest(%s::uuid[], %s::uuid[], %s::float8[])
"""

# pending -> near_duplicate: annotators get its near duplicate
HOLD_BACK = "update texts set status = 'near_duplicate' where id = any(%s)"

INSERT_BANDS = """
    insert into near_duplicate_bands (band, text_id)
    select band, id from unnest(%s::uuid[], %s::int8[]) with ordinality as new (id, band, place) order by place
"""
