"""Rejected rows that were stored as the repr of an object: forgetting cannot look texts up in them"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_DETAIL = (
    "An older release stored the fields of this row in a form that forgetting cannot search: they were deleted. "
    "Send the file again to see them."
)


def upgrade() -> None:
    """Blank them. In a row of a table, bytes are such a repr, too: b'…'."""
    op.execute(
        f"""
        update import_rejects set fields = null, detail = detail || ' ({_DETAIL})'
        where fields is not null
            and (json_typeof(fields) = 'string' or cast(fields as text) ~ '"b(''|\\\\")')
        """  # noqa: S608 - a constant
    )


def downgrade() -> None:
    """Nothing: what was deleted does not come back."""
