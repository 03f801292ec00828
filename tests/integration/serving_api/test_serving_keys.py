from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, insert, text

from core.models import ApiKey
from core.settings import DatabaseSettings
from core.web.keys import Scope, hash_key, make_key
from tests.integration.serving_api.conftest import Serve
from tests.integration.serving_api.labelling import Labeller, wait_until

NO_POSTGRES = DatabaseSettings(url=SecretStr("postgresql://app:app@127.0.0.1:1/app"))


def add_key(engine: Engine, *scopes: Scope, datasets: list[str] | None = None) -> dict[str, str]:
    key = make_key()
    values = {"id": uuid4(), "name": "test", "hash": hash_key(key), "scopes": list(scopes), "datasets": datasets}
    with engine.begin() as connection:
        connection.execute(insert(ApiKey).values(values))
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("scope", "status"), [(Scope.READ, 200), (Scope.ADMIN, 200), (Scope.INGEST, 403)], ids=str
)
def test_scope_decides(serve: Serve, engine: Engine, scope: Scope, status: int) -> None:
    headers = add_key(engine, scope)
    with serve(require_api_key=True) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/texts", headers=headers).status_code == status


def test_missing_key_is_told_before_wrong_parameters(serve: Serve) -> None:
    with serve(require_api_key=True) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        for path in ("/texts?limit=x", "/toxic_texts", "/stats?x=1&x=2", "/export.csv?x=1", "/texts/x"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_key")
        assert client.get("/healthz").status_code == 200


def test_new_and_withdrawn_keys_are_noticed(serve: Serve, engine: Engine) -> None:
    with serve(require_api_key=True) as client:
        headers = add_key(engine, Scope.READ)
        wait_until(lambda: client.get("/texts", headers=headers).status_code == 200)
        with engine.begin() as connection:
            connection.execute(text("update api_keys set withdrawn_at = now()"))
        wait_until(lambda: client.get("/texts", headers=headers).status_code == 401)


def test_keys_and_texts_are_known_while_postgres_is_away(serve: Serve, engine: Engine, labeller: Labeller) -> None:
    headers = add_key(engine, Scope.READ)
    limited, elsewhere = (add_key(engine, Scope.READ, datasets=[name]) for name in ("toxicity", "other"))
    labeller.add_label("a")
    with serve(require_api_key=True) as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        before = client.get("/texts", headers=headers)
        assert len(before.json()["items"]) == 1
    with serve(require_api_key=True, database=NO_POSTGRES) as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/texts").status_code == 401
        after = client.get("/texts", headers=headers)
        assert after.content == before.content
        assert after.headers["etag"] == before.headers["etag"]
        assert client.get("/texts", headers=limited).content == before.content
        refused = client.get("/texts", headers=elsewhere | {"If-None-Match": after.headers["etag"]})
        assert (refused.status_code, refused.json()["code"]) == (403, "dataset_not_allowed")


def test_without_file_and_postgres_it_says_what_is_missing(serve: Serve) -> None:
    with serve(database=NO_POSTGRES) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "not built yet" in ready.json()["missing"]["replica"]
        for path in ("/texts", "/stats", f"/texts/{uuid4()}", "/toxic_texts"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "replica_missing")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 200
