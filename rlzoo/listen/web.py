"""The pages of a listening test.

A client sends a join key, a session token, opaque names of sounds and trials, a choice; all of them are looked up, none
becomes part of a path. Sessions are cookies, or a personal link that sets one. Pages are escaped by the template
engine, and a content security policy forbids scripts other than ours.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from dataclasses import dataclass
from importlib import resources
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlzoo.listen.limits import Limiter
from rlzoo.listen.study import CHOICES, NAME_LENGTH, Busy, Rater, Refused, Study, Trial

COOKIE = "listen"
_BODY_BYTES = 4096
_BODY_SECONDS = 5.0
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # keys and tokens in addresses stay here; "no-referrer" would hide our own origin
    "x-robots-tag": "noindex",
}
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@dataclass(frozen=True)
class Limits:
    """Requests per second and at once: of a session, of an address (raters may share one), of failed look-ups."""

    session: tuple[float, int] = (20.0, 80)
    address: tuple[float, int] = (200.0, 1000)
    failures: tuple[float, int] = (0.5, 40)


def create_app(study: Study, limits: Limits | None = None) -> Starlette:
    """The ASGI application of one study."""
    pages = _Pages(study, limits or Limits())
    routes = [
        Route("/", pages.home),
        Route("/join/{key}", pages.join, methods=["GET", "POST"]),
        Route("/resume/{token}", pages.resume),
        Route("/volume", pages.volume),
        Route("/test", pages.test),
        Route("/done", pages.done),
        Route("/answer", pages.answer, methods=["POST"]),
        Route("/sound/{sound}", pages.sound),
        Route("/static/{name}", pages.static),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, limiter=pages.addresses)],
        exception_handlers={HTTPException: pages.explain, Busy: pages.busy},
    )


class _Guard:
    """Security headers on every response, and the limit per address before anything else is done."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self._app, self._limiter = app, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        wait = self._limiter.wait(_address(scope))
        if wait:
            await _too_many(wait)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)


class _Pages:
    def __init__(self, study: Study, limits: Limits) -> None:
        self.addresses = Limiter(*limits.address)
        self._sessions, self._failures = Limiter(*limits.session), Limiter(*limits.failures)
        self._study = study
        self._templates = Environment(
            loader=PackageLoader("rlzoo.listen"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        folder = resources.files("rlzoo.listen") / "static"
        # Read once: a name that is asked for is looked up here, never on the disk.
        self._static = {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] not in "._"}

    async def home(self, request: Request) -> Response:
        """Redirect to the page where a session continues."""
        rater, _ = await self._session(request)
        return RedirectResponse("/done" if rater.done == rater.total else "/test" if rater.done else "/volume", 303)

    async def join(self, request: Request) -> Response:
        """The invitation: asks for a name, makes a session."""
        if not _equal(request.path_params["key"], self._study.join_key):
            self._fail(request, 404, "This invitation is not valid. Please ask for the link again.")
        if request.method == "GET":
            token = request.cookies.get(COOKIE, "")
            known = await run_in_threadpool(self._study.rater, token) if token else None
            return self._page("join.html", key=self._study.join_key, known=known, name_length=NAME_LENGTH)
        _check_origin(request)
        body = await _body(request)
        try:
            fields = parse_qs(body.decode("utf-8"), max_num_fields=5)
        except ValueError as error:
            raise HTTPException(400, "This form could not be read.") from error
        try:
            token = await run_in_threadpool(self._study.join, fields.get("name", [""])[0])
        except Refused as refused:
            raise HTTPException(403, str(refused)) from refused
        return _signed_in(RedirectResponse("/volume", 303), token)

    async def resume(self, request: Request) -> Response:
        """A personal link: another device goes on where the first one stopped."""
        token = request.path_params["token"]
        if await run_in_threadpool(self._study.rater, token) is None:
            self._fail(request, 404, "This personal link is not valid.")
        return _signed_in(RedirectResponse("/", 303), token)

    async def volume(self, request: Request) -> Response:
        """Set the volume before the first question."""
        rater, token = await self._session(request)
        return self._page("volume.html", rater=rater, token=token)

    async def test(self, request: Request) -> Response:
        """The question that is open."""
        rater, token = await self._session(request)
        trial = await run_in_threadpool(self._study.current, rater.id)
        if trial is None:
            return RedirectResponse("/done", 303)
        question = self._study.settings.question
        return self._page("test.html", token=token, question=question, trial=json.dumps(_public(trial)))

    async def done(self, request: Request) -> Response:
        """Thanks; or back to what is still open."""
        rater, _ = await self._session(request)
        if rater.done < rater.total:
            return RedirectResponse("/test", 303)
        return self._page("done.html", rater=rater)

    async def answer(self, request: Request) -> Response:
        """Record a choice; answers with the next question once it is on the disk."""
        rater, _ = await self._session(request)
        _check_origin(request)
        # A form of another site cannot send this type without asking first.
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise HTTPException(415, "Send JSON.")
        given = _answer_of(await _body(request))
        try:
            await run_in_threadpool(self._study.answer, rater.id, *given)
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, 409)
        following = await run_in_threadpool(self._study.current, rater.id)
        return JSONResponse({"next": _public(following) if following else None})

    async def sound(self, request: Request) -> Response:
        """Audio by its opaque name; byte ranges are served, as phones want."""
        rater, _ = await self._session(request)
        name = request.path_params["sound"]
        if name == "volume":
            path = self._study.volume_sound()
        else:
            found = await run_in_threadpool(self._study.sound, rater.id, name)
            if found is None:
                self._fail(request, 404, "There is no such sound.")
            path = found
        return FileResponse(path, media_type="audio/wav", headers={"cache-control": "private, max-age=3600"})

    async def static(self, request: Request) -> Response:
        """Style and scripts."""
        name = request.path_params["name"]
        if name not in self._static:
            self._fail(request, 404, "There is no such page.")
        kind = _KINDS[name.rsplit(".", 1)[1]]
        return Response(self._static[name], media_type=kind, headers={"cache-control": "no-cache"})

    async def explain(self, request: Request, error: Exception) -> Response:
        """Errors as a page, or as JSON for scripts."""
        assert isinstance(error, HTTPException)
        headers = error.headers
        if request.scope["path"] == "/answer":
            return JSONResponse({"error": error.detail}, error.status_code, headers)
        page = self._page("message.html", title="Sorry", text=error.detail)
        page.status_code = error.status_code
        page.headers.update(headers or {})
        return page

    async def busy(self, request: Request, error: Exception) -> Response:
        """The test's file is locked or full: nothing was recorded, and the page tries again."""
        return await self.explain(request, HTTPException(503, str(error), {"retry-after": "1"}))

    async def _session(self, request: Request) -> tuple[Rater, str]:
        token = request.cookies.get(COOKIE, "")
        rater = await run_in_threadpool(self._study.rater, token) if token else None
        if rater is None:
            self._fail(request, 403, "Please open the link that you were sent.")
        wait = self._sessions.wait(str(rater.id))
        if wait:
            raise HTTPException(429, "Too many requests.", {"retry-after": str(math.ceil(wait))})
        return rater, token

    def _fail(self, request: Request, status: int, text: str) -> NoReturn:
        """Refuse; who guesses keys, tokens or names is soon told nothing at all."""
        wait = self._failures.wait(_address(request.scope))
        if wait:
            raise HTTPException(429, "Too many requests.", {"retry-after": str(math.ceil(wait))})
        raise HTTPException(status, text)

    def _page(self, template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values))


def _public(trial: Trial) -> dict[str, Any]:
    """The part of a trial that a browser may know: neither its kind nor its sides."""
    return {
        "id": trial.id,
        "number": trial.number,
        "total": trial.total,
        "text": trial.text,
        "first": f"/sound/{trial.first_sound}",
        "second": f"/sound/{trial.second_sound}",
    }


def _answer_of(body: bytes) -> tuple[str, str, float, int]:
    """Trial, choice, seconds it took, how often something was played."""
    try:
        given = json.loads(body)
        trial, choice, seconds, plays = (given[key] for key in ("trial", "choice", "seconds", "plays"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HTTPException(400, "An answer has trial, choice, seconds and plays.") from error
    sound = (
        isinstance(trial, str)
        and trial.isascii()
        and choice in CHOICES
        and type(seconds) in (int, float)
        and 0 <= seconds < 1e6
        and type(plays) is int
        and 0 <= plays < 1e6
    )
    if not sound:
        raise HTTPException(400, "This answer has values that cannot be.")
    return trial, choice, float(seconds), plays


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _BODY_BYTES:
                    raise HTTPException(413, "This is too much text.")
    except TimeoutError as error:
        raise HTTPException(408, "This took too long.", {"connection": "close"}) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The connection broke off.") from error
    return body


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    try:
        place = None if origin is None else urlsplit(origin).netloc
    except ValueError:  # as of `http://[`
        place = ""
    if place is not None and place != request.headers.get("host"):
        raise HTTPException(403, "This was sent from another site.")


def _signed_in(response: Response, token: str) -> Response:
    # Lax, not strict: the link is opened from mails and messages. Not secure-only: a LAN has no certificates.
    response.set_cookie(COOKIE, token, max_age=90 * 24 * 3600, httponly=True, samesite="lax")
    return response


def _equal(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def _too_many(wait: float) -> Response:
    return JSONResponse({"error": "Too many requests."}, 429, {"retry-after": str(math.ceil(wait))})
