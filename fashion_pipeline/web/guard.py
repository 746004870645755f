"""Who may ask the web server: it answers to its own names only, and not to pages of other servers.

It listens on 127.0.0.1, but a browser on this machine asks whatever a page tells it to. A page from elsewhere could
start runs, since the UI needs no password, or, by a name of its own that it lets point to 127.0.0.1 (DNS rebinding),
read all that the UI shows. So `Host` must be a name of ours, and `Origin`, which browsers add where one page asks
another, the same.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Guard:
    """Refuses requests and connections that name another server, or come from the page of another one."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        """`names` are further names of this server, such as that of a proxy in front of it."""
        self._app, self._names = app, LOOPBACK | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or not (why := self._refusal(Headers(scope=scope))):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=why)(scope, receive, send)
        else:
            await PlainTextResponse(why, status_code=403)(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(f"//{host}") not in self._names:
            return "This server is not known by that name: add the name to FASHION_PIPELINE_HOSTS."
        if origin is not None and _place(origin) != host.lower():
            return "Pages of other servers may not ask this one."
        return ""


def _place(origin: str) -> str:
    """Name and port of an origin; empty for `null` or for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(address: str) -> str:
    """The name in an address, without the port; empty for none, or for an address that is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
