"""Who may ask the web server: it answers to its own names only, and not to pages of other servers.

It listens on 127.0.0.1, but a browser on this machine asks whatever a page tells it to. A page from elsewhere could
start runs, since the UI needs no password, or, by a name of its own that it lets point to 127.0.0.1 (DNS rebinding),
read all that the UI shows. So `Host` must be a name of ours, and `Origin`, which browsers add where one page asks
another, the same.

An image of another page sends no `Origin`, and Dagster carries out what stands in an address, changes too. So
`Sec-Fetch-Site` (https://www.w3.org/TR/fetch-metadata/) must not name another site, unless a person follows a link to a
page, and no query of GraphQL is taken from an address.
"""

from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_GRAPHQL = "/graphql"
_FROM_ELSEWHERE = "Pages of other servers may not ask this one."


class Guard:
    """Refuses requests and connections that name another server, or come from the page of another one."""

    def __init__(self, app: ASGIApp, names: Iterable[str] = ()) -> None:
        """`names` are further names of this server, such as that of a proxy in front of it."""
        self._app, self._names = app, LOOPBACK | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket") or not (why := self._refusal(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=why)(scope, receive, send)
        else:
            await PlainTextResponse(why, status_code=403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(f"//{host}") not in self._names:
            return "This server is not known by that name: add the name to FASHION_PIPELINE_HOSTS."
        if origin is not None and _place(origin) != host.lower():
            return _FROM_ELSEWHERE
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not _follows_a_link(scope, headers):
            return _FROM_ELSEWHERE
        if _asks_in_its_address(scope):
            return "GraphQL is asked by POST, with the query in the body."
        return ""


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens a page of ours in a tab, as it does when a person clicks on a link in a message."""
    opens = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return opens and scope["type"] == "http" and scope["method"] == "GET"


def _asks_in_its_address(scope: Scope) -> bool:
    """Whether a request to GraphQL has its query in the address, where Dagster reads it whatever the method."""
    if scope["type"] != "http" or not scope["path"].rstrip("/").endswith(_GRAPHQL):
        return False
    return "query" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)


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
