"""The routes, and who may read them."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mmstream.web.health import Report, judge
from mmstream.web.look import Look
from mmstream.web.prometheus import expose
from mmstream.web.settings import is_loopback

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Guard:
    """Who may read what is shown."""

    def __init__(self, token: SecretStr | None) -> None:
        """Whoever knows the token; without one whoever sits at this machine."""
        self._token = None if token is None else token.get_secret_value().encode()

    def trusts(self, request: Request) -> bool:
        """Whether the asker may see all.

        Without a token a page in a browser must not, which reaches us under a name of its own that
        leads to 127.0.0.1 (DNS rebinding): we must have been asked for under our own name.
        """
        if self._token is None:
            return is_loopback(_name_of_us(request))
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and secrets.compare_digest(
            said.encode("latin-1"), self._token
        )

    def refusal(self) -> Response:
        """What those get who may not."""
        if self._token is None:
            return PlainTextResponse("ask for 127.0.0.1 or localhost\n", 403, _HEADERS)
        headers = {**_HEADERS, "WWW-Authenticate": "Bearer"}
        return PlainTextResponse("a token is needed: Authorization: Bearer ...\n", 401, headers)


def _name_of_us(request: Request) -> str:
    """What the asker calls us: `request.url` falls back to our own where that is no name."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def make_app(guard: Guard, look: Callable[[], Look | None]) -> Starlette:
    """Serves what `look` gives, which is called on the event loop; None: nothing runs yet."""
    routes = [
        Route("/metrics", partial(_metrics, guard=guard, look=look)),
        Route("/healthz", partial(_health, guard=guard, look=look, is_good=_is_alive)),
        Route("/readyz", partial(_health, guard=guard, look=look, is_good=_is_ready)),
    ]
    return Starlette(routes=routes)


async def _metrics(request: Request, *, guard: Guard, look: Callable[[], Look | None]) -> Response:
    if not guard.trusts(request):
        return guard.refusal()
    if (taken := look()) is None:
        return PlainTextResponse("nothing runs yet\n", 503, _HEADERS)
    exposed = await asyncio.to_thread(expose, taken, request.headers.get("accept", ""))
    return Response(exposed.body, 200, {**_HEADERS, "Content-Type": exposed.content_type})


async def _health(
    request: Request,
    *,
    guard: Guard,
    look: Callable[[], Look | None],
    is_good: Callable[[Report], bool],
) -> Response:
    """All of the report for those who may see it, the one word for a supervisor without token."""
    if (taken := look()) is None:
        return PlainTextResponse("nothing runs yet\n", 503, _HEADERS)
    report = judge(taken)
    fields = None if guard.trusts(request) else {"status"}
    body = report.model_dump_json(include=fields) + "\n"
    status = 200 if is_good(report) else 503
    return Response(body, status, _HEADERS, media_type="application/json")


def _is_alive(report: Report) -> bool:
    return report.alive


def _is_ready(report: Report) -> bool:
    return report.ready and report.alive
