"""Leads `POST /texts` past the framework's layers, which together cost as much as checking the text."""

from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core.web.problems import Problem, problem_response
from ingestion_api.texts.endpoints import create_text

_ROUTE = Route("/texts", create_text, methods=["POST"])


class Shortcut:
    """ASGI middleware that calls `create_text` at once. The same route in the app documents it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != _ROUTE.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        try:
            response = await create_text(Request(scope, receive))
        except Problem as problem:
            response = problem_response(problem)
        except ClientDisconnect:
            return
        await response(scope, receive, send)
