"""Stands in for the ingestion API and the uploader: stores texts, and what annotators say about them."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, Engine, insert, select, text

from core.datasets import Dataset, adjudication_of
from core.labels.annotations import Response, replace_annotations
from core.models import AnnotationStatus, Text
from core.text_identity import text_id
from serving_api.replica.replica import Replica
from tests.waiting import wait_for

_DATASETS = {name: Dataset(labels=("yes", "no"), guidelines="x", dispute_extra=2) for name in ("toxicity", "mood")}

Said = Mapping[str, str | tuple[AnnotationStatus, str | None]]


def random_answer(chance: random.Random) -> tuple[AnnotationStatus, str | None]:
    """Return the status and the label of an answer; five of seven are submitted."""
    status = chance.choice([AnnotationStatus.SUBMITTED] * 5 + [AnnotationStatus.DRAFT, AnnotationStatus.DISCARDED])
    return status, chance.choice(["toxic", "toxic", "non_toxic"]) if status == AnnotationStatus.SUBMITTED else None


class Labeller:
    """Writes texts and annotations the way the other programs do."""

    def __init__(self, engine: Engine, answers_wanted: int = 1) -> None:
        self.engine = engine
        changes = {"answers_wanted": answers_wanted}
        self._datasets = {name: dataset.model_copy(update=changes) for name, dataset in _DATASETS.items()}
        self._responses: dict[UUID, dict[str, Response]] = {}

    def add_text(self, words: str, dataset: str = "toxicity", **columns: Any) -> UUID:
        """Store a text and return its id."""
        id_ = text_id(dataset, words)
        columns = {"metadata_": {}} | columns
        with self.engine.begin() as connection:
            connection.execute(insert(Text).values(id=id_, dataset=dataset, text=words, **columns))
        return id_

    def add_label(self, words: str, value: str = "toxic", dataset: str = "toxicity", **columns: Any) -> UUID:
        """Store a text with one annotation and return its id."""
        id_ = self.add_text(words, dataset, **columns)
        self.annotate({id_: {"ada": value}}, dataset)
        return id_

    def annotate(self, said: Mapping[UUID, Said], dataset: str = "toxicity") -> None:
        """Make these the only annotations of the texts."""
        with self.engine.begin() as connection:
            self.annotate_within(connection, said, dataset)

    def annotate_within(
        self, connection: Connection, said: Mapping[UUID, Said], dataset: str = "toxicity"
    ) -> None:
        """Do the same in a transaction of the caller's."""
        now = datetime.now(UTC)
        read = {id_: self._read(id_, words, now) for id_, words in said.items()}
        replace_annotations(connection, self._datasets, dataset, now, read)

    def decide(self, said: Mapping[str, Said], dataset: str = "toxicity") -> None:
        """Make these the only adjudicators' answers about disputed texts; `said` goes by what the texts say."""
        copies = {text_id(adjudication_of(dataset), words): answers for words, answers in said.items()}
        self.annotate(copies, adjudication_of(dataset))

    def list_disputed(self, texts: list[str], dataset: str = "toxicity") -> list[str]:
        """Return which of these texts have been put before adjudicators."""
        statement = select(Text.text).where(Text.dataset == adjudication_of(dataset), Text.text.in_(texts))
        with self.engine.connect() as connection:
            return sorted(connection.scalars(statement))

    def newest_stamp(self) -> int:
        """Return the highest transaction id on a label."""
        with self.engine.connect() as connection:
            stamp = connection.scalar(text("select coalesce(max(changed_xid::text::bigint), 0) from labels"))
        return int(stamp or 0)

    def wait_for(self, replica: Replica) -> None:
        """Wait until the replica shows every committed label."""
        wait_until(lambda: replica.state is not None and replica.state.version >= self.newest_stamp())

    def _read(self, id_: UUID, words: Said, now: datetime) -> list[Response]:
        held = self._responses.setdefault(id_, {})
        for gone in held.keys() - words.keys():
            del held[gone]
        for annotator, answer in words.items():
            status, value = (AnnotationStatus.SUBMITTED, answer) if isinstance(answer, str) else answer
            old = held.get(annotator)
            if old is None:
                # Argilla never uses an id twice, also where a deleted answer is given again.
                new_id = uuid5(id_, f"{annotator} {time.monotonic_ns()}")
                old = Response(id_, new_id, uuid5(id_, annotator), annotator, status, value, {}, now, now)
            elif (old.status, old.value) != (status, value):
                old = replace(old, status=status, value=value, updated_at=now)
            held[annotator] = old
        return list(held.values())


def wait_until(condition: Any) -> None:
    """Wait until `condition()` holds."""
    wait_for(lambda: bool(condition()))


_HELD = """
    select l.text_id::text, l.label, l.status, l.annotations, l.labelled_at at time zone 'utc',
           l.changed_xid::text::bigint, t.text, l.confidence, l.rule, l.rule_version, l.decided_by, t.gold_label,
           t.completed_at is not null,
           array(select case when s.id = t.id then 'annotator ' else 'adjudicator ' end
                        || a.annotator || '=' || coalesce(a.value, a.status)
                 from annotations a join texts s on s.id = a.text_id
                 where t.id in (s.id, s.adjudicates) and a.withdrawn_at is null order by 1)
    from labels l join texts t on t.id = l.text_id
    where l.status <> 'withdrawn' and t.adjudicates is null order by 1
"""
_COPIED = """
    select id::varchar, label, status, annotations, labelled_at, version, text, confidence, rule, rule_version,
           decided_by, gold_label, complete,
           coalesce((select list(a.role || ' ' || a.annotator || '=' || coalesce(a.value, a.status) order by 1)
                     from annotations a where a.text_id = items.id), [])
    from items order by 1
"""


_COUNTED = {
    "totals": "select dataset, label, status, complete, source, language, count(*) from items",
    "totals_by_day": "select dataset, labelled_at::date, count(*) from items",
    "totals_by_annotator": """
        select dataset, annotator, count(*) from annotations where status = 'submitted' and role = 'annotator'
    """,
}


def assert_same(engine: Engine, replica: Replica) -> None:
    """Compare all that the replica holds with what Postgres holds."""
    with engine.connect() as connection:
        held = [(*row[:-1], sorted(row[-1])) for row in connection.execute(text(_HELD))]
        withdrawn = {str(row[0]) for row in connection.execute(text(_WITHDRAWN))}
    with replica.reading() as cursor:
        copied = [(*row[:-1], sorted(row[-1])) for row in cursor.execute(_COPIED).fetchall()]
        tombstones = [str(row[0]) for row in cursor.execute("select id from tombstones").fetchall()]
        orphans = cursor.execute("select count(*) from annotations where text_id not in (select id from items)")
        assert orphans.fetchall() == [(0,)]
        for table, counted in _COUNTED.items():
            kept = cursor.execute(f"select * from {table} order by all").fetchall()  # noqa: S608
            assert kept == cursor.execute(f"{counted} group by all order by all").fetchall()
    assert copied == held
    assert sorted(tombstones) == sorted(withdrawn)


_WITHDRAWN = """
    select l.text_id from labels l join texts t on t.id = l.text_id
    where l.status = 'withdrawn' and t.adjudicates is null
"""
