"""Tests of uploader.rules.estimation: labels follow the dataset's rule, with real processes on a real Postgres."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy.ext.asyncio import AsyncEngine

from core.datasets import Dataset, LabelRule, adjudication_of
from core.labels.annotations import Response, replace_annotations
from core.labels.rules import TOLERANCE, Answer, Outcome, RuleInForce, load_parameters, majority
from core.models import AnnotationStatus
from tests.integration.uploader.conftest import AddTexts, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET, get_database, leading
from tests.programs import free_port, running
from tests.unit.crowds import LABELS, simulate
from tests.waiting import wait_for
from uploader.dataset import DatasetState
from uploader.leadership import NotLeading
from uploader.rules.crowd import RuleEstimate, estimate_dataset
from uploader.rules.estimation import Estimator
from uploader.runner import run_in_process
from uploader.settings import RuleSettings

TEXTS = 60
START = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERS = [answers[:5] for answers in simulate(TEXTS, seed=3).texts]
DISPUTED = [("annotator 0", "toxic"), ("annotator 1", "non_toxic")]
# No pause between two estimates.
AT_ONCE = RuleSettings(interval_seconds=1e-9, share=1)


@dataclass
class Side:
    """One uploader that leads, and the answers that it takes over."""

    engine: AsyncEngine
    state: DatasetState
    estimator: Estimator

    async def answer(self, answers: dict[UUID, list[Answer]], dataset: str = DATASET, minute: int = 1) -> None:
        """Take over what annotators have answered about some texts: all of it, as a read of Argilla shows."""
        read = {id_: [_response(id_, *answer) for answer in given] for id_, given in answers.items()}
        async with self.engine.begin() as connection:
            at = START + timedelta(minutes=minute)
            await connection.run_sync(replace_annotations, self.state.datasets, dataset, at, read)

    async def estimate(self, on_step: Callable[[], None] = lambda: None) -> None:
        """Look once, as the job does."""
        await self.estimator.run(asyncio.Event(), on_step)


def _response(text_id: UUID, annotator: str, value: str) -> Response:
    id_ = uuid.uuid5(text_id, annotator)
    return Response(
        text_id,
        id_,
        uuid.uuid5(uuid.NAMESPACE_DNS, annotator),
        annotator,
        AnnotationStatus.SUBMITTED,
        value,
        {},
        START,
        START,
    )


@asynccontextmanager
async def estimating(engine: AsyncEngine, rule: LabelRule = LabelRule.DAWID_SKENE) -> AsyncIterator[Side]:
    definition = Dataset(labels=LABELS, guidelines="x", label_rule=rule, answers_wanted=2, dispute_extra=1)
    async with leading(engine, definition=definition) as state:
        yield Side(engine, state, Estimator(state, AT_ONCE, get_database(engine), anyio.CapacityLimiter(1)))


@dataclass
class Labels:
    """The stored labels."""

    rows: Rows

    def __call__(self) -> dict[UUID, Any]:
        """Return the labels of the dataset: label, status, confidence, rule, version, who decided, stamp."""
        found = self.rows(
            "select text_id, label, status, confidence, rule, rule_version, decided_by, changed_xid::text"
            " from labels where dataset = 'toxicity'"
        )
        return {row[0]: row[1:] for row in found}

    def rule(self) -> RuleInForce:
        """Return the rule in force."""
        [(rule, version, parameters)] = self.rows("select rule, rule_version, rule_parameters from datasets")
        return RuleInForce(LabelRule(rule), version, parameters and load_parameters(parameters))


def _shown(outcome: Outcome) -> tuple[Any, ...]:
    confidence = None if outcome.confidence is None else pytest.approx(outcome.confidence)
    return (outcome.label, outcome.status, confidence, outcome.rule, outcome.rule_version)


def _estimates() -> float:
    return REGISTRY.get_sample_value("uploader_rule_seconds_count", {"dataset": DATASET}) or 0


def _failures() -> float:
    return REGISTRY.get_sample_value("uploader_rule_failures_total", {"dataset": DATASET}) or 0


@pytest.mark.usefixtures("one_process")
def test_labels_follow_the_rule_of_the_settings(run: RunWithEngine, add_texts: AddTexts, rows: Rows) -> None:
    ids = add_texts(*(f"text {n}" for n in range(TEXTS)))
    [disputed, late] = add_texts("disputed", "late")
    labels = Labels(rows)

    async def dawid_skene(engine: AsyncEngine) -> None:
        async with estimating(engine) as side:
            # Before the first estimate the majority decides. Adjudicators decide a tie.
            await side.answer({disputed: DISPUTED} | dict(zip(ids, ANSWERS, strict=True)))
            assert labels()[ids[0]][:5] == _shown(majority(value for _, value in ANSWERS[0]))
            [(copy,)] = rows("select id from texts where adjudicates is not null")
            await side.answer({copy: [("adjudicator", "non_toxic")]}, adjudication_of(DATASET))
            decided = labels()[disputed]
            assert decided[:2] == ("non_toxic", "labelled")

            await side.estimate()
            first, rule = labels(), labels.rule()
            assert (rule.rule, rule.version) == (LabelRule.DAWID_SKENE, 1)
            for id_, answers in zip(ids, ANSWERS, strict=True):
                assert first[id_][:5] == _shown(rule.label(answers))
                assert first[id_][5] == "annotators"
            assert first[disputed][:3] == decided[:3]
            assert first[disputed][3:6] == ("dawid_skene", 1, "adjudicators")
            # Some labels are others than the majority's.
            assert [
                id_
                for id_, a in zip(ids, ANSWERS, strict=True)
                if first[id_][0] != majority(v for _, v in a).label
            ]

            # One look more sees that those changes were its own, and then there is nothing to do.
            await side.estimate()
            assert (labels(), labels.rule()) == (first, rule)
            count = _estimates()
            await side.estimate()
            assert _estimates() == count

            # New answers, edits and withdrawals are weighted immediately.
            await side.answer({late: DISPUTED[:1], ids[0]: ANSWERS[0][:1], ids[1]: []}, minute=2)
            now = labels()
            assert now[late][:5] == _shown(rule.label(DISPUTED[:1]))
            assert now[ids[0]][:5] == _shown(rule.label(ANSWERS[0][:1]))
            assert now[ids[1]][:2] == (None, "withdrawn")
            assert {id_ for id_ in first if now[id_] != first[id_]} == {ids[0], ids[1]}

            # The next estimate restamps only the labels that it changes.
            flipped = [(name, LABELS[value == "toxic"]) for name, value in ANSWERS[2]]
            await side.answer({ids[2]: flipped}, minute=3)
            before = labels()
            await side.estimate()
            after, rule = labels(), labels.rule()
            assert rule.version == 2
            given = dict(zip(ids, ANSWERS, strict=True)) | {
                late: DISPUTED[:1],
                ids[0]: ANSWERS[0][:1],
                ids[2]: flipped,
            }
            restamped = {id_ for id_ in given if after[id_] != before[id_]}
            assert 0 < len(restamped) < TEXTS
            for id_ in given.keys() - {ids[1]}:
                outcome = rule.label(given[id_])
                assert after[id_][:2] == (outcome.label, outcome.status)
                assert after[id_][2] == pytest.approx(outcome.confidence, abs=0 if id_ in restamped else TOLERANCE)
                assert after[id_][4] == (2 if id_ in restamped else 1)
            assert (after[disputed], after[ids[1]]) == (before[disputed], before[ids[1]])

    async def back(engine: AsyncEngine) -> None:
        async with estimating(engine, LabelRule.MAJORITY) as side:
            await side.estimate()
            found = labels()
            for id_, answers in zip(ids[3:], ANSWERS[3:], strict=True):
                assert found[id_][:5] == _shown(majority(value for _, value in answers))
            assert found[disputed][:2] == ("non_toxic", "labelled")
            assert found[disputed][3:6] == ("majority", 1, "adjudicators")
            count = _estimates()
            await side.estimate()
            assert _estimates() == count

    run(dawid_skene)
    run(back)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_interrupts_an_estimate_costs_nothing(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = add_texts(*(f"text {n}" for n in range(TEXTS)))
    labels = Labels(rows)
    monkeypatch.setattr("uploader.rules.estimation.BATCH_TEXTS", 25)
    state = "select rule, rule_version, rule_seen_xid is not null from datasets"

    async def work(engine: AsyncEngine) -> None:
        async with estimating(engine) as side:
            await side.answer(dict(zip(ids, ANSWERS, strict=True)))
            before, failures = labels(), _failures()

            with monkeypatch.context() as patched:
                patched.setattr("uploader.rules.estimation.estimate_dataset", _die)
                await side.estimate()
            assert _failures() == failures + 1
            assert (labels(), rows(state)) == (before, [(None, 0, False)])

            stopped = asyncio.Event()
            stopped.set()
            await side.estimator.run(stopped, lambda: None)
            assert (labels(), rows(state)) == (before, [(None, 0, False)])

            # Stopped after the first labels: the next uploader continues with the same estimate.
            stopping = asyncio.Event()
            await side.estimator.run(stopping, stopping.set)
            assert rows(state) == [("dawid_skene", 1, False)]
            assert sorted(row[3] for row in labels().values()) == ["dawid_skene"] * 25 + ["majority"] * 35
            await side.estimate()
            assert rows(state) == [("dawid_skene", 1, True)]
            assert {row[3:5] for row in labels().values()} == {("dawid_skene", 1)}

            # Another uploader leads by now: it finds everything as it was.
            await side.answer({ids[0]: []}, minute=2)
            before = labels()
            async with engine.begin() as connection:
                await connection.exec_driver_sql("update datasets set leader_id = gen_random_uuid()")
            with pytest.raises(NotLeading):
                await side.estimate()
            assert (labels(), rows(state)) == (before, [("dawid_skene", 1, True)])

    run(work)


def test_an_estimate_may_take_longer_than_a_transaction_may_be_idle(
    run: RunWithEngine, add_texts: AddTexts
) -> None:
    """To import crowd-kit alone takes more than a second."""
    ids = add_texts(*(f"text {n}" for n in range(TEXTS)))

    async def work(engine: AsyncEngine) -> RuleEstimate | None:
        async with estimating(engine) as side:
            await side.answer(dict(zip(ids, ANSWERS, strict=True)))
            async with engine.begin() as connection:
                name = engine.url.database
                await connection.exec_driver_sql(
                    f"alter database \"{name}\" set idle_in_transaction_session_timeout = '1s'"
                )
            place = DATASET, side.state.definition, get_database(engine)
            return await run_in_process(asyncio.Event(), anyio.CapacityLimiter(1), estimate_dataset, *place)

    estimate = run(work)
    assert estimate is not None
    assert (estimate.is_new, estimate.texts, len(estimate.to_rewrite)) == (True, TEXTS, TEXTS)


def test_the_uploader_does_it_by_itself(
    run: RunWithEngine, add_texts: AddTexts, rows: Rows, database_url: str, tmp_path: Path
) -> None:
    ids = add_texts("a", "b")
    labels = Labels(rows)

    async def answer(engine: AsyncEngine) -> None:
        async with estimating(engine) as side:
            await side.answer({ids[0]: DISPUTED, ids[1]: DISPUTED[:1]})

    run(answer)
    (tmp_path / "datasets.toml").write_text(
        '[toxicity]\nlabels = ["toxic", "non_toxic"]\nguidelines = "x"\nlabel_rule = "mace"\n'
    )
    env = {
        "DATABASE_URL": database_url,
        "DATASETS_FILE": str(tmp_path / "datasets.toml"),
        "ARGILLA_URL": f"http://127.0.0.1:{free_port()}",
        "ARGILLA_API_KEY": "nobody there",
    }
    with running("uploader", env, tmp_path / "uploader.log") as uploader:
        wait_for(lambda: {row[3:5] for row in labels().values()} == {("mace", 1)})
        assert 'uploader_rule_annotators{dataset="toxicity"} 2.0' in httpx.get(f"{uploader.url}/metrics").text
