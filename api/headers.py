"""Headers that stand on every response: any web page may read it, and no browser guesses its type."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EVERYWHERE = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag, Last-Modified, Content-Range, Accept-Ranges, Allow",
    "X-Content-Type-Options": "nosniff",
}


class EveryResponse:
    """Adds them. Starlette answers an unexpected error outside of every middleware: its handler adds them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and add the headers to what comes back."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(EVERYWHERE)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
