"""A client that asks for much and reads nothing: its request is cancelled, the memory for it is
bounded, and others are served meanwhile. On the mock engine, all roles in one process and combined.
"""
import argparse
import json
import socket
import time
import unittest

from cluster import complete
from tessera_server import TesseraServer

OPTIONS = None
# A step of 0 ms would outrun the router, which then ends the stream itself and counts no disconnect.
SPEED = ["--engine", "mock", "--mock-prefill-tokens-per-s", "1000000", "--mock-decode-step-ms", "1"]
# 19 MB of events: more than the sockets and the server's stream buffer hold.
GREEDY = {"prompt": [7, 8, 9], "max_tokens": 4000, "n": 8, "logprobs": 20, "ignore_eos": True,
          "stream": True}
MODEST = {"prompt": [7, 8, 9], "max_tokens": 20, "ignore_eos": True}
MEMORY_LIMIT = 64 << 20


class SlowReaderTest(unittest.TestCase):
    def ask_and_read_nothing(self, url):
        host, port = url.removeprefix("http://").split(":")
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        body = json.dumps(GREEDY)
        client.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n"
                        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                        f"{body}").encode())
        return client

    def check(self, arguments):
        with TesseraServer(OPTIONS.server, OPTIONS.model, arguments=[*SPEED, *arguments]) as server:
            complete(server.url, MODEST)
            idle = server.resident_bytes()
            with self.ask_and_read_nothing(server.url) as client:
                deadline = time.monotonic() + 60
                while (server.metric("tessera_http_client_disconnects_total") == 0
                       or server.metric("tessera_requests_running") > 0):
                    self.assertLess(time.monotonic(), deadline, "the request goes on")
                    answer = complete(server.url, MODEST)
                    self.assertEqual(answer["usage"]["completion_tokens"], 20)
                self.assertLess(server.resident_bytes() - idle, MEMORY_LIMIT)
                with self.assertRaises(ConnectionResetError):
                    while client.recv(1 << 20):
                        pass
            self.assertEqual(server.stop(), 0)

    def test_over_workers(self):
        self.check([])

    def test_combined(self):
        self.check(["--combined"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
