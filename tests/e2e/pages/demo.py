"""A database that looks like a project of some weeks: for tests of the pages, and for their screenshots.

`python -m tests.e2e.pages.demo` serves it until Ctrl-C.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pydantic import SecretStr

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import running_stack
from tests.programs import Program, free_port, run, running

# Days, sources, languages and annotators follow from each text's id, so that each run shows the same. With an even
# number of annotators there are ties.
_SPREAD = """
create temp table spread on commit drop as
select id, row_number() over (order by id) as number, abs(hashtextextended(id::text, 1)) as h from texts;
create unique index on spread (id);
update texts t set
    source = (array['forum', 'news comments', 'support chat', 'app reviews', 'forum'])[1 + s.h % 5],
    score = case when s.h % 7 = 0 then null else score end,
    enrichment = jsonb_build_object('language', jsonb_build_object(
        'code', (array['en', 'en', 'en', 'de', 'es'])[1 + s.h / 5 % 5], 'confidence', 0.93)),
    metadata = jsonb_build_object('thread', s.h % 400, 'likes', s.h % 90, 'edited', s.h % 4 = 0)
from spread s where s.id = t.id;
update labels l set
    labelled_at = now() - make_interval(days => (21 * power(s.h % 1000 / 1000.0, 1.4))::int, secs => s.h % 30000)
from spread s where s.id = l.text_id;
update annotations a set created_at = l.labelled_at, updated_at = l.labelled_at
from labels l where l.text_id = a.text_id;
update annotations a set
    annotator = (array['ada', 'grace', 'alan', 'katherine', 'edsger', 'barbara'])
        [1 + (s.h / 25 + substr(a.annotator, 11)::int) % 6],
    created_at = a.created_at - make_interval(secs => substr(a.annotator, 11)::int * 20)
from spread s where s.id = a.text_id;
"""


def fill(database_url: str, texts: int, annotators: int = 4) -> None:
    """Fill an empty, migrated database."""
    env = {"DATABASE_URL": database_url, "COLUMNS": "100"}
    ended = run("cli", "demo-data", "--texts", str(texts), "--annotators", str(annotators), env=env, seconds=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with psycopg.connect(database_url) as connection:
        connection.execute(_SPREAD)


@contextmanager
def serving(database_url: str, folder: Path, port: int | None = None, **env: str) -> Iterator[Program]:
    """Run a serving API on a database."""
    settings = {"DATABASE_URL": database_url, "DATA_DIR": str(folder), "REPLICA_POLL_SECONDS": "0.2"} | env
    with running("serving_api", settings, folder / "serving.log", "/readyz", port) as program:
        yield program


def main() -> None:
    """Serve a demo project on port 9100 until Ctrl-C."""
    with running_stack({"postgres"}) as stack, tempfile.TemporaryDirectory() as folder:
        url = stack.database_url
        migrate(DatabaseSettings(url=SecretStr(url)))
        fill(url, 3000)
        port = free_port()
        ingesting = {"DATABASE_URL": url, "DATA_DIR": folder, "HTTP_CORS_ORIGINS": "http://127.0.0.1:9100"}
        with (
            running("ingestion_api", ingesting, Path(folder) / "ingestion.log", "/readyz", port) as ingestion,
            serving(url, Path(folder), 9100, PAGE_INGESTION_URL=ingestion.url) as program,
        ):
            print(program.url, ingestion.url, url, flush=True)  # noqa: T201
            while True:
                time.sleep(60)


if __name__ == "__main__":
    main()
