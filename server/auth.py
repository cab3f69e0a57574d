"""Who may talk to the server: this machine only, with the token, and no web page through the back door.

A page in a browser can send requests to 127.0.0.1, and by DNS rebinding it can even pretend to be of the same
origin. It cannot choose the Host header, it cannot leave out Origin, and it does not know the token.
"""

from __future__ import annotations

import hmac
import json
import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.schema import ApiError

MIN_TOKEN = 16


def new_token() -> str:
    """256 bits, safe in a header and in JSON."""
    return secrets.token_urlsafe(32)


class Gate:
    """ASGI middleware, outermost: checks Host, Origin and the Bearer token of every request."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        names = ("127.0.0.1", "localhost")
        self._hosts = {f"{name}:{port}" for name in names}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = self._refusal(Headers(scope=scope))
        if error is None:
            await self._app(scope, receive, send)
        else:
            await _answer(send, error)

    def _refusal(self, headers: Headers) -> ApiError | None:
        if headers.get("host", "").lower() not in self._hosts:
            return ApiError(
                421, "host", "This server answers to 127.0.0.1 and localhost only; use its own address."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            return ApiError(403, "origin", "Requests from web pages are refused; use GeoInv's own programs.")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode(), self._token)
        if scheme.lower() != "bearer" or not known:
            return ApiError(
                401,
                "token",
                "The token is missing or wrong; take the one that the engine printed when it started.",
            )
        return None


async def _answer(send: Send, error: ApiError) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="geoinv"'))
    # The body of a refused upload is not read, so the connection cannot be used again.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
