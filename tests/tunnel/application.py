"""What developers run in containers: HTTP, WebSocket, server-sent events, uploads and downloads, by aiohttp.

usage: application.py PORT
"""

import asyncio
import json
import sys

from aiohttp import WSMsgType, web

BLOCK = bytes(1024 * 1024)


PAGE = """<!doctype html><meta charset="utf-8"><title>{0}</title>
<style>body {{font: 18px/1.6 sans-serif; margin: 60px auto; width: 640px; color: #223}}</style>
<h1>{0}</h1><p>This container listens at port {1}. Your computer is {2} to it.</p>"""


async def headers(request: web.Request) -> web.Response:
    if "text/html" in request.headers.get("Accept", ""):
        client = request.headers.get("X-Forwarded-For", "")
        return web.Response(text=PAGE.format(request.host, sys.argv[1], client), content_type="text/html")
    return web.json_response({"method": request.method, "host": request.host, **dict(request.headers)})


async def upload(request: web.Request) -> web.Response:
    received = 0
    async for block in request.content.iter_any():
        received += len(block)
    return web.Response(text=str(received))


async def download(request: web.Request) -> web.StreamResponse:
    megabytes = int(request.query["megabytes"])
    response = web.StreamResponse(headers={"Content-Length": str(megabytes * len(BLOCK))})
    await response.prepare(request)
    for _ in range(megabytes):
        await response.write(BLOCK)
    return response


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(f"data: {json.dumps(number)}\n\n".encode())
        await asyncio.sleep(1)
    return response


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(f"echo {message.data}")
    return socket


application = web.Application(client_max_size=2**40)
application.router.add_get("/", headers)
application.router.add_put("/upload", upload)
application.router.add_get("/download", download)
application.router.add_get("/events", events)
application.router.add_get("/echo", echo)
web.run_app(application, port=int(sys.argv[1]), print=None)
