"""What the ingestion API and the uploader agree on about near duplicates."""

# The status of a text that annotators are asked for, or soon will be.
ASKED = ("pending", "uploading", "uploaded")


def lock_of(dataset: str) -> str:
    """Return the SQL that locks a dataset's near duplicates until the transaction ends; `dataset` is SQL, too.

    Whoever stores texts holds it from before it looks for their twins, and whoever lets a text fail: so no twin is
    overlooked because it is being stored at the same time, and none waits for a text that has just failed. Take it
    by a statement of its own: the next one sees what was stored before.
    """
    return f"pg_advisory_xact_lock(hashtextextended('near_duplicates ' || {dataset}, 0))"
