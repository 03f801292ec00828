"""Fills the table of texts without sending anything: with texts that annotators have already."""

import psycopg

_ROWS_A_STATEMENT = 1_000_000

# -> uploaded: as most rows of a table that has grown for long are.
_FILL = """
    insert into texts (id, dataset, text, claimed_label, source, external_id, status, uploaded_at)
    select gen_random_uuid(), 'toxicity', repeat('nobody thanks you ', (random() * 12)::int) || n, 'toxic',
           'bench', 'post-' || n, 'uploaded', now()
    from generate_series(1, %s) as n
"""


def fill(database_url: str, rows: int) -> None:
    """Make the table hold `rows` texts. The indexes are built when the rows are there, which takes less time."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate texts restart identity")
        indexes = connection.execute(
            "select indexname, indexdef from pg_indexes where tablename = 'texts' and indexname <> 'pk_texts'"
        ).fetchall()
        connection.execute("alter table texts drop constraint pk_texts")
        for name, _ in indexes:
            connection.execute(f"drop index {name}".encode())
        for start in range(0, rows, _ROWS_A_STATEMENT):
            connection.execute(_FILL, [min(_ROWS_A_STATEMENT, rows - start)])
        connection.execute("alter table texts add constraint pk_texts primary key (id)")
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("vacuum (analyze) texts")
