"""Tests of uploader.argilla.webhook on a model of Argilla's webhooks."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.uploader.conftest import Rows, RunWithEngine
from tests.integration.uploader.model_argilla import ModelArgilla
from uploader.argilla.client import Argilla
from uploader.argilla.errors import Unreachable
from uploader.argilla.webhook import EVENTS, Registration

_URL = "http://127.0.0.1:8080/webhooks/argilla"
_SOMEBODY_ELSES: dict[str, Any] = {
    "id": "0",
    "url": "http://else/",
    "events": ["dataset.created"],
    "enabled": True,
    "secret": "s",
    "inserted_at": "2025-01-01T00:00:00",
}

Renew = Callable[..., bool]


@pytest.fixture
def model() -> ModelArgilla:
    """An Argilla with a foreign webhook."""
    return ModelArgilla(webhooks=[dict(_SOMEBODY_ELSES)])


@pytest.fixture
def renew(run: RunWithEngine, model: ModelArgilla) -> Renew:
    """See to the webhook; return whether events can be counted on."""

    def renew_(url: str | None = _URL) -> bool:
        async def work(engine: AsyncEngine) -> bool:
            transport = httpx.MockTransport(model.answer)
            async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
                registration = Registration(Argilla(http), engine, url, "w")
                await registration.renew()
                return registration.is_on

        is_on: bool = run(work)
        assert model.webhooks[0] == _SOMEBODY_ELSES
        return is_on

    return renew_


def _ours(model: ModelArgilla) -> list[dict[str, Any]]:
    return model.webhooks[1:]


def test_a_webhook_is_made_once_and_its_secret_kept(renew: Renew, model: ModelArgilla, rows: Rows) -> None:
    assert [renew(), renew(), renew()] == [False, True, True]
    [webhook] = _ours(model)
    assert (webhook["url"], webhook["events"]) == (_URL, list(EVENTS))
    assert rows("select id::text, secret from webhooks") == [(webhook["id"], webhook["secret"])]


@pytest.mark.parametrize(
    "damage",
    [
        lambda webhooks: webhooks.pop(1),
        lambda webhooks: webhooks[1].update(enabled=False),
        lambda webhooks: webhooks[1].update(events=["record.deleted"]),
        lambda webhooks: webhooks[1].update(url="http://else/"),
        lambda webhooks: webhooks.append(webhooks[1] | {"id": "1", "inserted_at": "2999-01-01T00:00:00"}),
        lambda webhooks: webhooks[1].update(secret="another"),
    ],
)
def test_what_is_wrong_with_it_is_set_right(
    renew: Renew, model: ModelArgilla, rows: Rows, damage: Callable[[Any], None]
) -> None:
    renew()
    damage(model.webhooks)
    renew()
    assert renew()
    [webhook] = _ours(model)
    assert (webhook["url"], webhook["events"], webhook["enabled"]) == (_URL, list(EVENTS), True)
    assert rows("select id::text, secret from webhooks") == [(webhook["id"], webhook["secret"])]


def test_after_events_may_have_been_lost_they_are_not_counted_on_until_the_next_look(
    renew: Renew, model: ModelArgilla
) -> None:
    renew()
    model.webhooks[1]["enabled"] = False
    assert [renew(), renew()] == [False, True]


def test_another_address_takes_the_former_ones_place(renew: Renew, model: ModelArgilla, rows: Rows) -> None:
    renew("http://127.0.0.1:7070/webhooks/argilla")
    renew()
    assert [webhook["url"] for webhook in _ours(model)] == [_URL]
    assert rows("select count(*) from webhooks") == [(1,)]


def test_a_webhook_with_our_address_that_we_do_not_know_is_taken_over(
    renew: Renew, model: ModelArgilla, rows: Rows, run: RunWithEngine
) -> None:
    renew()

    async def forget(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("truncate webhooks")

    run(forget)
    assert renew()
    assert rows("select id::text from webhooks") == [(_ours(model)[0]["id"],)]


def test_without_an_address_ours_is_deleted(renew: Renew, model: ModelArgilla, rows: Rows) -> None:
    renew()
    assert not renew(None)
    assert _ours(model) == []
    assert rows("select count(*) from webhooks") == [(0,)]


def test_an_outage_forgets_nothing(renew: Renew, model: ModelArgilla, rows: Rows) -> None:
    renew()
    model.is_away = True
    with pytest.raises(Unreachable):
        renew()
    assert rows("select count(*) from webhooks") == [(1,)]
