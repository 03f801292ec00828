"""An uploader that is frozen in the midst of a push: another takes over, and each text is in Argilla once."""

import signal

import httpx
import pytest

from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.waiting import wait_for

_LEASE = {"UPLOADER_LEADER_LEASE_SECONDS": "2", "UPLOAD_BATCH_SIZE": "50"}


@pytest.mark.soak
def test_a_frozen_uploader_doubles_and_loses_nothing(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    add_texts(*(f"text {i}" for i in range(600)))
    with start_uploader(**_LEASE) as frozen, start_uploader(**_LEASE) as other:
        wait_for(lambda: statuses(database_url).get("uploaded", 0) >= 50)
        frozen.process.send_signal(signal.SIGSTOP)
        assert statuses(database_url).get("uploaded", 0) < 600
        try:
            # Frozen within a transaction it keeps the lead until Postgres ends that, after a minute.
            wait_for(lambda: statuses(database_url) == {"uploaded": 600}, seconds=150)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        add_texts(*(f"later {i}" for i in range(60)))
        wait_for(lambda: statuses(database_url) == {"uploaded": 660})
        wait_for(lambda: httpx.get(f"{frozen.url}/readyz").status_code == 200)
        assert 'uploader_leads{dataset="toxicity"} 0.0' in httpx.get(f"{frozen.url}/metrics").text
        assert 'uploader_leads{dataset="toxicity"} 1.0' in httpx.get(f"{other.url}/metrics").text
    assert argilla.visible_count() == argilla.stored_count() == 660
    # What the frozen one finished late had no effect: no text was counted twice.
    assert fetch(database_url, "select distinct attempts, lease_owner from texts") == [(1, None)]
