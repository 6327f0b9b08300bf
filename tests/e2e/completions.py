"""Requests over /v1/completions on plain asyncio sockets, and how answers are compared."""
import asyncio
import json


class ServerError(Exception):
    """An HTTP error, or an error event inside a stream."""


async def _open(url, body):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    text = json.dumps(body)
    writer.write((f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
                  f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
                  "Connection: close\r\n\r\n" + text).encode())
    return reader, writer


async def stream_text(url, body, stop_after=0, timeout=120.0):
    """(texts by choice, whole): reads to [DONE], or leaves after `stop_after` events.

    Raises ServerError for an error answer or event, RuntimeError for a stream that breaks off."""
    async with asyncio.timeout(timeout):
        reader, writer = await _open(url, {**body, "stream": True})
        try:
            status = await reader.readline()
            if b" 200 " not in status:
                raise ServerError(f"{status.decode().strip()} {(await reader.read(4000)).decode()}")
            return await _read_events(reader, stop_after)
        finally:
            writer.close()


async def _read_events(reader, stop_after):
    texts = {}
    events = 0
    while True:
        line = await reader.readline()
        if not line:
            raise RuntimeError("the stream broke off")
        if not line.startswith(b"data: "):
            continue
        data = line[len(b"data: "):].strip()
        if data == b"[DONE]":
            return texts, True
        event = json.loads(data)
        if "error" in event:
            raise ServerError(event["error"]["message"])
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        events += 1
        if events == stop_after:
            return texts, False


def first_difference(expected, actual):
    """None when two `logprobs` objects name the same tokens; else (position, the gap between the
    two best tokens there)."""
    for position, (one, other) in enumerate(zip(expected["tokens"], actual["tokens"])):
        if one != other:
            best = sorted(expected["top_logprobs"][position].values(), reverse=True)
            return position, best[0] - best[1] if len(best) > 1 else float("inf")
    if len(expected["tokens"]) != len(actual["tokens"]):
        return min(len(expected["tokens"]), len(actual["tokens"])), float("inf")
    return None
