"""The pages of the documentation in a browser: they load and run what is their own, and nothing else."""

import base64
import hashlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)

# Swagger UI and ReDoc set styles themselves, and draw pictures that they hold as data; ReDoc searches in a worker.
_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def with_policy(app: ASGIApp) -> ASGIApp:
    """Wrap an application that answers with a page in one piece: add a Content-Security-Policy made for it."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            if held:
                start = held.pop()
                policy = content_security_policy(message.get("body", b""))
                more = (b"content-security-policy", policy.encode()), (b"referrer-policy", b"no-referrer")
                await send({**start, "headers": [*start["headers"], *more]})
            await send(message)

        await app(scope, receive, send_guarded)

    return guarded


def content_security_policy(page: bytes) -> str:
    """Return the policy that lets a page's own inline scripts run, each named by its hash, and no other."""
    hashes = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    return _POLICY.format(scripts="".join(f" 'sha256-{base64.b64encode(one).decode()}'" for one in hashes))
