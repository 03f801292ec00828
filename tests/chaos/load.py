"""Clients that send texts, and annotators who answer, change their minds and delete, while parts die under them.

What an annotator's call did is not noted: it may have been done though its answer was lost. Argilla knows.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import psycopg

from tests.chaos.parts import Platform
from tests.chaos.truth import argilla_database_url
from tests.e2e.uploader.conftest import Annotator, ArgillaSpace

_BAD_SHARE = 0.03
BAD = {"a_integer": "many"}  # refused by a filter that an admin made
_LABELS = ("toxic", "non_toxic")

_SOME_RECORD = """
select records.id::text, responses.id::text from records
left join responses on responses.record_id = records.id and responses.user_id = %s
where records.dataset_id = %s
order by random() limit 1
"""

_ANY_RECORD = "select id::text, external_id from records where dataset_id = %s order by random() limit 1"


@dataclass
class Load:
    """What clients did."""

    platform: Platform
    argilla: ArgillaSpace
    dataset_id: str
    acknowledged: dict[UUID, str] = field(default_factory=dict)  # texts by the ids answered
    bad: set[UUID] = field(default_factory=set)
    deleted: set[UUID] = field(default_factory=set)  # texts whose record somebody tried to delete
    answer_count: int = 0

    def send(self, name: str, choose: random.Random, stopping: threading.Event) -> None:
        """Send texts one by one, each again until it is acknowledged."""
        number = 0
        while not stopping.wait(0.1):
            number += 1
            text, is_bad = f"{name}, text {number}", choose.random() < _BAD_SHARE
            body = {"text": text, "metadata": BAD if is_bad else {"number": number}}
            while (id_ := self._send_once(body)) is None:
                time.sleep(0.2)
            self.acknowledged[id_] = text
            if is_bad:
                self.bad.add(id_)

    def _send_once(self, body: Mapping[str, object]) -> UUID | None:
        try:
            answer = httpx.post(f"{self.platform.ingestion_url}/texts", json=body, timeout=10)
        except httpx.TransportError:
            return None
        # Nothing but success, and "not now".
        assert answer.status_code in {200, 201, 429, 503}, answer.text
        return UUID(answer.json()["id"]) if answer.is_success else None

    def annotate(self, annotator: Annotator, choose: random.Random, stopping: threading.Event) -> None:
        """Do something to one record after the other."""
        while not stopping.wait(0.15):
            with suppress(httpx.HTTPError, psycopg.OperationalError):
                self._annotate_once(annotator, choose)
                self.answer_count += 1

    def _annotate_once(self, annotator: Annotator, choose: random.Random) -> None:
        with psycopg.connect(argilla_database_url(self.platform), connect_timeout=5) as connection:
            found = connection.execute(_SOME_RECORD, [annotator.id, self.dataset_id]).fetchone()
        if found is None:
            return
        record_id, response_id = found
        if response_id is None:
            new = choose.choice([annotator.answer, annotator.answer, annotator.save_draft])
            new(record_id, choose.choice(_LABELS))
        else:
            self._change(annotator, record_id, response_id, choose)

    def _change(self, annotator: Annotator, record_id: str, response_id: str, choose: random.Random) -> None:
        match choose.choice(["edit", "edit", "discard", "delete", "delete, answer"]):
            case "edit":
                annotator.edit(response_id, choose.choice(_LABELS))
            case "discard":
                body = {"status": "discarded", "values": {}}
                annotator.http.put(f"responses/{response_id}", json=body).raise_for_status()
            case "delete":
                annotator.delete(response_id)
            case "delete, answer":
                annotator.delete(response_id)
                annotator.answer(record_id, choose.choice(_LABELS))

    def delete_records(self, stopping: threading.Event) -> None:
        """Delete a record now and then, as an admin may."""
        while not stopping.wait(4):
            with suppress(httpx.HTTPError, psycopg.OperationalError):
                with psycopg.connect(argilla_database_url(self.platform), connect_timeout=5) as connection:
                    found = connection.execute(_ANY_RECORD, [self.dataset_id]).fetchone()
                if found:
                    self.deleted.add(UUID(found[1]))
                    self.argilla.http.delete(f"records/{found[0]}").raise_for_status()


@contextmanager
def running_load(load: Load, annotators: list[Annotator], name: str, seed: int) -> Iterator[None]:
    """Keep everybody busy until the block ends; raises what went wrong with them."""
    stopping = threading.Event()
    jobs: list[Callable[[], None]] = [
        lambda: load.send(name, random.Random(seed), stopping),  # noqa: S311 - repeatable on purpose
        lambda: load.delete_records(stopping),
    ]
    for place, annotator in enumerate(annotators, start=1):
        choose = random.Random(seed + place)  # noqa: S311
        jobs.append(lambda annotator=annotator, choose=choose: load.annotate(annotator, choose, stopping))  # type: ignore[misc]
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            yield
        finally:
            stopping.set()
        for future in futures:
            future.result()
