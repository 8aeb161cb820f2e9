"""JSON and JSON Lines over HTTP: parameters in, pages out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from mailtui.control.errors import WRONG, VerbError
from mailtui.control.reads import DEFAULT_LIMIT, Document

# Rows of a listing that are read in one call: a fraction of a millisecond each, so other readers hardly wait.
PAGE = 500

# Rows that are put into text in one turn of the loop: about two milliseconds.
TURN = 200

JSON_LINES = "application/x-ndjson"


def flag(request: web.Request, name: str) -> bool:
    """A parameter that is yes or no."""
    return request.query.get(name, "").lower() in ("1", "true", "yes")


def number(request: web.Request, name: str, default: int) -> int:
    """A parameter that is a whole number."""
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise VerbError(f"{name} is no whole number; for example {name}={default}", WRONG)
    return int(text)


def limit_of(request: web.Request) -> int:
    """Rows asked for; 0 means all."""
    return number(request, "limit", DEFAULT_LIMIT)


async def body_of(request: web.Request) -> Document:
    """The JSON object of a POST; without a body an empty one."""
    text = await request.text()
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise VerbError(f"the body of {request.method} {request.path} is no JSON object", WRONG)
    return value


async def pages(page: Callable[[int, str], Any], limit: int, after: str) -> AsyncIterator[list[Document]]:
    """Page after page until there are `limit` rows, or no more."""
    left = limit or 1 << 62
    while left > 0:
        size = min(left, PAGE)
        rows: list[Document] = await page(size, after)
        yield rows
        if len(rows) < size:
            return
        left -= size
        after = rows[-1]["cursor"]


async def stream_lines(request: web.Request, pages: AsyncIterator[list[Document]]) -> web.StreamResponse:
    """Stream pages as JSON Lines; what goes wrong after the first page is a last line with `error` and `exit`."""
    response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
    first: list[Document] = await anext(pages, [])
    await response.prepare(request)
    await write(response, first)
    try:
        async for rows in pages:
            await write(response, rows)
    except VerbError as error:
        await write(response, [{"error": error.text, "exit": error.exit}])
    return response


async def write(response: web.StreamResponse, rows: list[Document]) -> None:
    """Some lines; waits while the other side does not read."""
    if rows:
        await response.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))


async def many_lines(request: web.Request, rows: list[Document]) -> web.StreamResponse:
    """JSON Lines that are all there and may be thousands: mail goes on while they are put into text."""
    if len(rows) <= TURN:
        return json_lines(rows)
    response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
    await response.prepare(request)
    for at in range(0, len(rows), TURN):
        await write(response, rows[at : at + TURN])
        await asyncio.sleep(0)
    return response


def json_lines(rows: list[Document], **headers: str) -> web.Response:
    """JSON Lines that are all there."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
    return web.Response(body=text, content_type=JSON_LINES, headers=headers)
