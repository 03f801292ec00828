"""The change feed: label rows in the order of the transactions that changed them.

Every change to a label stamps its row with the id of its transaction. A reader takes the rows between its
position and the oldest transaction that is still running: every transaction below has ended, so no row can appear
there later. A reader that follows a sequence or a timestamp misses rows that commit late; this window misses none.

Rows carry state, not differences; a label that is gone stays as a `withdrawn` row.
"""

from sqlalchemy import Connection, text

# The upper end comes from the same snapshot as the rows. For readers of several statements: use one
# REPEATABLE READ transaction, and this one first.
WINDOW_END = "pg_snapshot_xmin(pg_current_snapshot())"

# Goes into every INSERT and UPDATE of a label.
STAMP = "pg_current_xact_id()"

# Wakes the readers; sent at most once a transaction, since NOTIFY takes a database-wide lock at commit.
CHANNEL = "label_changes"

_NOTIFY = text("select pg_notify(:channel, '')")


def wake_readers(connection: Connection) -> None:
    """Notify the readers that labels changed, when the transaction commits."""
    connection.execute(_NOTIFY, {"channel": CHANNEL})
