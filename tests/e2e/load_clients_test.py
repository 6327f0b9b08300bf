"""What public load-test clients send, read the way they read it: `vllm bench serve` (its fields,
headers and idea of a token), guidellm, inference-perf, and curl's Expect: 100-continue.

Their requests are spelled out here, down to fields that say nothing (`"logprobs": null`), because
a server that refuses or reads one of them differently fails the whole run of such a client.
"""
import argparse
import collections
import contextlib
import http.client
import json
import socket
import sys
import unittest

from tessera_server import TesseraServer

OPTIONS = None
SERVER = None
KEY = "sk-load-clients"
TOKENS = 12
PROMPT = "Once upon a time there was"


Answer = collections.namedtuple("Answer", "status reason headers text")


def post(path, body, headers=None):
    address = SERVER.url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("POST", path, json.dumps(body),
                           {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json",
                            **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.reason, response.headers, response.read().decode())


def events(answer):
    """Data of the events, up to [DONE], which must be the last."""
    blocks = answer.text.split("\n\n")
    data = [block.strip().removeprefix("data: ") for block in blocks
            if block.strip() and not block.startswith(":")]
    if data[-1] != "[DONE]":
        raise AssertionError(f"the stream ends with {data[-1]!r}")
    return [json.loads(text) for text in data[:-1]]


class LoadClientsTest(unittest.TestCase):
    def model(self):
        return json.loads(SERVER.get("/v1/models")[1])["data"][0]["id"]

    def read_as_vllm(self, answer, text_of):
        """Text, tokens by usage, and chunks with choices: each counts as a token's time."""
        self.assertEqual(answer.status, 200, answer.reason)
        text, chunks, usage = "", 0, None
        for event in events(answer):
            if event.get("choices"):
                self.assertIsNone(usage, "choices behind the usage")
                text += text_of(event["choices"][0]) or ""
                chunks += 1
            elif event.get("usage"):
                usage = event["usage"]
        return text, chunks, usage

    def check_vllm(self, path, body, text_of, whole_text_of):
        answer = post(path, body, {"x-request-id": "benchmark-serving0"})
        self.assertEqual(answer.headers["x-request-id"], "benchmark-serving0")
        text, chunks, usage = self.read_as_vllm(answer, text_of)
        self.assertEqual(usage["completion_tokens"], TOKENS)
        self.assertGreater(usage["prompt_tokens"], 0)
        self.assertGreaterEqual(chunks, TOKENS)
        self.assertLessEqual(chunks, TOKENS + 2)  # the role, the reason for the end
        plain = {key: body[key] for key in body if key not in ("stream", "stream_options")}
        whole = json.loads(post(path, plain).text)
        self.assertEqual(text, whole_text_of(whole["choices"][0]))
        self.assertEqual(usage["prompt_tokens"], whole["usage"]["prompt_tokens"])

    def test_vllm_completions(self):
        for prompt in (PROMPT, [5, 6, 7, 8]):  # text, and --dataset-name random as ids
            self.check_vllm("/v1/completions",
                            {"model": self.model(), "prompt": prompt, "repetition_penalty": 1.0,
                             "max_tokens": TOKENS, "logprobs": None, "stream": True,
                             "stream_options": {"include_usage": True}, "ignore_eos": True,
                             "temperature": 0.0},
                            lambda choice: choice.get("text"), lambda choice: choice["text"])

    def test_vllm_chat(self):
        content = [{"type": "text", "text": PROMPT}]
        self.check_vllm("/v1/chat/completions",
                        {"model": self.model(),
                         "messages": [{"role": "user", "content": content}],
                         "max_completion_tokens": TOKENS, "stream": True,
                         "stream_options": {"include_usage": True}, "ignore_eos": True,
                         "temperature": 0.0},
                        lambda choice: choice["delta"].get("content"),
                        lambda choice: choice["message"]["content"])

    def test_errors_have_a_reason_phrase(self):  # all that `vllm bench serve` says of them
        answer = post("/v1/completions", {"model": "another", "prompt": PROMPT})
        self.assertEqual((answer.status, answer.reason), (404, "Not Found"))

    def test_guidellm(self):
        self.assertEqual(SERVER.get("/health")[0], 200)
        answer = post("/v1/completions",
                        {"model": self.model(), "prompt": PROMPT, "max_tokens": TOKENS,
                         "ignore_eos": True, "stream": True,
                         "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
        self.assertEqual(answer.status, 200)
        counts = [event["usage"]["completion_tokens"] for event in events(answer)]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], TOKENS)
        self.assertEqual(set(range(1, TOKENS + 1)) - set(counts), set())

    def test_inference_perf(self):
        answer = post("/v1/chat/completions",
                        {"model": self.model(), "messages": [{"role": "user", "content": PROMPT}],
                         "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
                         "stream_options": {"include_usage": True}})
        _, _, usage = self.read_as_vllm(answer, lambda choice: choice["delta"].get("content"))
        self.assertEqual(usage["completion_tokens"], TOKENS)

    def test_curl_waits_for_100_continue(self):
        host, port = SERVER.url.removeprefix("http://").split(":")
        body = json.dumps({"prompt": PROMPT, "max_tokens": 2}).encode()
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
                            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
                            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n"
                            "Connection: close\r\n\r\n").encode())
            lines = client.makefile("rb")
            self.assertEqual(lines.readline(), b"HTTP/1.1 100 Continue\r\n")
            self.assertEqual(lines.readline(), b"\r\n")
            client.sendall(body)
            self.assertEqual(lines.readline(), b"HTTP/1.1 200 OK\r\n")


def main():
    global OPTIONS, SERVER  # pylint: disable=global-statement
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS = parser.parse_args()
    with TesseraServer(OPTIONS.server, OPTIONS.model, api_key=KEY) as SERVER:
        result = unittest.main(argv=sys.argv[:1], exit=False, verbosity=2).result
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
