"""An application that is small, for what every application refuses to browsers."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from core.settings import AccessSettings
from core.web.app import install_web
from core.web.server import http_settings

MakeClient = Callable[..., TestClient]


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch) -> MakeClient:
    """Makes a client of an application; `settings` are environment variables."""
    monkeypatch.setattr("core.web.app.http_settings", http_settings.__wrapped__)

    def make(*, require_api_key: bool = False, **settings: str) -> TestClient:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        app = FastAPI()

        async def things() -> str:
            return "done"

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            app.add_api_route("/things", things, methods=[method], name=method)
        install_web(app, {}, AccessSettings(require_api_key=require_api_key))
        return TestClient(app)

    return make
