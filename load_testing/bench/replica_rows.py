"""Replicas made by DuckDB itself, without Postgres: ten million labelled texts in minutes. And an API over one."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from load_testing.bench.harness import Server, serving
from local_stack.settings import StackSettings
from serving_api.replica import tables
from serving_api.replica.replica import Replica
from serving_api.search.follower import SearchFollower
from serving_api.settings import ReplicaSettings

_VERSION = 1_000_000
_NO_POSTGRES = "postgresql://nobody@127.0.0.1:9/nothing"

# All follows from the number of a text. One label a second; a quarter is toxic, one in fifty disputed. The source
# `rare` has one text in 10,000. ada answered all texts, bob every second and cleo one in 1,000.
_ITEMS = """
    select n, md5('text ' || n)::uuid as id, 'toxicity' as dataset, label,
           ['I think', 'Honestly', 'Well', 'Listen', 'To be fair', 'As always'][1 + n % 6] || ' '
           || ['this update', 'your answer', 'that video', 'the new map', 'their team'][1 + n // 6 % 5] || ' '
           || ['is great', 'is a joke', 'made my day', 'is garbage', 'works fine'][1 + n // 30 % 5] || ', and '
           || ['you should be ashamed', 'I would do it again', 'nobody asked you'][1 + n // 150 % 3]
           || '. (demo text ' || n || ')' as text,
           case when label is null then 'disputed' else 'labelled' end as status,
           case when label is null then 0.5 when hash(n, 3) % 10 = 0 then 0.75 else 1.0 end as agreement,
           case when label is null then '{"non_toxic":1,"toxic":1}' else '{"' || label || '":2}' end as votes,
           2 as annotations, true as complete, if(label is null, null, agreement) as confidence,
           'majority' as rule, 1 as rule_version, 'annotators' as decided_by,
           case when hash(n, 4) % 10000 = 0 then 'rare' when hash(n, 5) % 3 = 0 then 'forum' else 'mail' end
           as source,
           null as predicted_label, null as predicted_probability, null as model_version,
           'demo-' || n as external_id, label as claimed_label, n % 1000 / 1000 as score,
           '{"number":' || n || '}' as metadata, '{"language":{"code":"en","confidence":0.9}}' as enrichment,
           'en' as language, labelled_at - interval 2 hour as received_at, labelled_at,
           $version + (n - $first) // $each as version
    from (
        select n, now()::timestamp - to_seconds($rows - n) as labelled_at,
               case when hash(n, 1) % 50 = 0 then null when hash(n, 2) % 4 = 0 then 'toxic' else 'non_toxic' end
               as label
        from range($first::bigint, $last::bigint) as numbers(n)
    )
"""
_ANNOTATIONS = """
    insert into annotations by name
    select md5(n || '/' || annotator)::uuid as id, md5('text ' || n)::uuid as text_id, 'toxicity' as dataset,
           'annotator' as role, annotator, 'toxic' as value, 'submitted' as status,
           now()::timestamp - to_seconds($rows - n) as created_at, created_at as updated_at
    from range($rows) as numbers(n)
    cross join (values ('ada', 1), ('bob', 2), ('cleo', 1000)) as annotators(annotator, every)
    where n % every = 0
"""


def make_replica(path: Path, rows: int) -> None:
    """Make a replica's file of `rows` texts, as a build from Postgres would leave it, unless it exists."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("unfinished")
    unfinished.unlink(missing_ok=True)
    with duckdb.connect(unfinished) as connection:
        create_tables(connection)
        connection.execute(_ANNOTATIONS, {"rows": rows})
        insert_items(connection, items(), items_between(0, rows, rows, _VERSION, each=rows))
        for statement in tables.FINISH:
            connection.execute(statement)
        set_version(connection, _VERSION)
    unfinished.rename(path)


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the empty tables of a replica."""
    for name, columns in tables.TABLES.items():
        connection.execute(f"create table {name} ({columns})")


def items(replace: str = "") -> str:
    """Return the query of texts with the parameters of `items_between`.

    `replace` are other expressions for some columns, made from the number `n` of a text.
    """
    return f"select * exclude (n) {replace and f'replace ({replace})'} from ({_ITEMS})"  # noqa: S608 - constants


def items_between(first: int, last: int, rows: int, version: int, each: int) -> dict[str, int]:
    """Return parameters: the texts from `first` until before `last`; each was labelled `rows` - n seconds ago.

    The first `each` texts have the version `version`, the next ones a version more, and so on.
    """
    return {"first": first, "last": last, "rows": rows, "version": version, "each": each}


def insert_items(connection: duckdb.DuckDBPyConnection, query: str, values: dict[str, int]) -> None:
    """Insert a query of texts into a replica, in the order of their times."""
    derived = tables.derive(f"({query})", "annotations", "labelled_at")
    connection.execute(f"insert into items by name {derived}", values)


def set_version(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    """Write the layout and the version of the replica."""
    connection.execute("insert into layout values (?)", [tables.LAYOUT])
    connection.execute("insert into state values ('bench', ?, ?, now()::timestamp, 1)", [version + 1, version])


def data_directory(rows: int) -> Path:
    """Return the cached data directory for `rows` texts; ten million take minutes to make."""
    key = hashlib.sha256(_ROWS_KEY).hexdigest()[:12]
    return StackSettings().cache_dir / "bench" / f"{rows}-texts-{key}"


def replica_path(data: Path) -> Path:
    """Return the path of the serving API's replica in a data directory."""
    return data / "serving" / "replica.duckdb"


def build_index(data: Path) -> None:
    """Build the search index, unless it exists: the server would spend processor time on it meanwhile."""
    replica = Replica(replica_path(data), ReplicaSettings())
    replica.open()
    search = SearchFollower(replica)
    try:
        search.follow()
    finally:
        search.close()
        replica.close()


@contextmanager
def serving_replica(rows: int, cache: bool = True) -> Iterator[Server]:
    """Run the serving API over a replica of `rows` texts."""
    data = data_directory(rows)
    make_replica(replica_path(data), rows)
    build_index(data)
    # Measure requests that exceed the usual time limit, do not refuse them.
    with serving_folder(data, cache, {"SERVING_QUERY_SECONDS": "120"}) as server:
        yield server


@contextmanager
def serving_folder(data: Path, cache: bool, settings: dict[str, str]) -> Iterator[Server]:
    """Run the serving API over the replica in a data directory. There is no Postgres: all data is in the file."""
    env = {"DATABASE_URL": _NO_POSTGRES, "REQUIRE_API_KEY": "false", "LOG_LEVEL": "ERROR", "DATA_DIR": str(data)}
    with serving(["serving_api"], env | settings | ({} if cache else {"SERVING_CACHE_BYTES": "0"})) as server:
        yield server


# The cached files depend on these.
_ROWS_KEY = repr((tables.LAYOUT, tables.TABLES, tables.FINISH, _ITEMS, _ANNOTATIONS)).encode()
