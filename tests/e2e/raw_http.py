"""Bytes to a server as they are, and what comes back: for requests that no client library would send."""
import asyncio
import json
import re
import time


def address_of(url):
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


async def exchange(url, data, seconds=20.0):
    """Sends `data` and returns all that comes until the server ends the connection, by itself;
    raises TimeoutError when it does not."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(*address_of(url))
        try:
            writer.write(data)
            return await read_to_end(reader)
        finally:
            writer.close()


async def read_to_end(reader):
    """A reset is an end, too."""
    received = b""
    try:
        while piece := await reader.read(1 << 16):
            received += piece
    except ConnectionError:
        pass
    return received


async def read_answer(reader):
    """Status and body of one answer with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    return int(lines[0].split()[1]), await reader.readexactly(int(fields["content-length"]))


def statuses(received):
    """The status of each answer in what a server sent; bodies of these tests hold nothing like it."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


async def seconds_until_closed(reader):
    """How long the server keeps a connection on which nothing more is read."""
    started = time.monotonic()
    received = await read_to_end(reader)
    return time.monotonic() - started, received


def post(path, body, *fields):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json",
            f"Content-Length: {len(text)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + text
