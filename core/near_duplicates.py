"""SQL about near duplicates that storing, failing and forgetting texts share."""

# The status of a text that annotators are asked for, or soon will be.
ASKED = ("pending", "uploading", "uploaded")


def lock_of(dataset: str) -> str:
    """Return the SQL that locks a dataset's near duplicates until the transaction ends; `dataset` is SQL, too.

    Take it before looking for the twins of new texts, and before marking a text as failed. Then no twin that is
    stored at the same time is overlooked, and none waits for a text that has just failed. Take it with a separate
    statement: only the next statement sees the rows that were stored before.
    """
    return f"pg_advisory_xact_lock(hashtextextended('near_duplicates ' || {dataset}, 0))"


# near_duplicate -> pending: none of the twins that annotators were to be asked for is left
RELEASE_TWINS = """
update texts set status = 'pending'
where status = 'near_duplicate'
    and id in (select text_id from near_duplicates where twin_id = any(:ids))
    and not exists (
        select from near_duplicates join texts as twin on twin.id = twin_id
        where text_id = texts.id and twin.status = any(:asked)
    )
"""

# For texts with these ids. A transaction that stores one of their twins waits, and then sees their new status.
LOCK_TWINS = f"""
select {lock_of("dataset")}
from (select distinct dataset from texts where id = any(:ids) order by dataset) as names
"""  # noqa: S608 - constants only
