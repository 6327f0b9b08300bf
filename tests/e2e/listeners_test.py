"""--metrics-port: what operators read is on a listener of its own, and only there; probes are on both.
"""
import argparse
import json
import signal
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from browser import Browser, find_browser
from cluster import RoleProcess, free_ports
from raw_http import address_of

OPTIONS = None
KEY = "listeners-test-key"
MOCK = ["--engine", "mock", "--mock-decode-step-ms", "5"]
PROBES = ("/livez", "/readyz", "/health")
FOR_OPERATORS = ("/metrics", "/cluster")
FOR_CLIENTS = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize",
               "/version", "/ping")
STREAM = {"prompt": [5, 6, 7], "max_tokens": 300, "ignore_eos": True, "stream": True}


def request_to(url, key=None, body=None):
    headers = {"Content-Type": "application/json"} if body else {}
    if key:
        headers["Authorization"] = "Bearer " + key
    return urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)


def status_of(url, key=None):
    try:
        with urllib.request.urlopen(request_to(url, key), timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class ListenersTest(unittest.TestCase):
    def start(self, *arguments):
        """All roles in one process, with its operators' URL."""
        (port,) = free_ports(1)
        server = RoleProcess(OPTIONS.server, "serve", OPTIONS.model,
                             [*MOCK, "--api-key", KEY, "--metrics-port", str(port), *arguments])
        self.addCleanup(server.log.close)
        self.addCleanup(server.kill)
        server.start()
        server.wait_until_ready()
        return server, f"http://127.0.0.1:{port}"

    def check_routes(self, *arguments):
        server, operators = self.start(*arguments)
        for path in (*PROBES, "/"):
            self.assertEqual((status_of(server.url + path), status_of(operators + path)), (200, 200))
        for path in FOR_OPERATORS:
            self.assertEqual([status_of(server.url + path), status_of(server.url + path, KEY),
                              status_of(operators + path)], [401, 404, 200], path)
        for path in FOR_CLIENTS:
            self.assertEqual([status_of(server.url + path), status_of(operators + path),
                              status_of(operators + path, KEY)], [401, 404, 404], path)
        self.assertEqual(server.stop(), 0)

    def test_each_route_is_where_it_belongs(self):
        self.check_routes()

    def test_the_same_of_one_engine(self):
        self.check_routes("--combined")

    def test_operators_can_watch_a_drain(self):
        server, operators = self.start()
        url = server.url + "/v1/completions"
        with urllib.request.urlopen(request_to(url, KEY, STREAM), timeout=60) as stream:
            stream.readline()
            server.signal(signal.SIGTERM)
            deadline = time.monotonic() + 20
            while status_of(operators + "/readyz") != 503:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            with urllib.request.urlopen(operators + "/metrics", timeout=20) as response:
                self.assertIn(b"\ntessera_http_open_streams{", response.read())
            self.assertTrue(stream.read().rstrip().endswith(b"data: [DONE]"))
        self.assertEqual(server.process.wait(30), 0)

    def test_says_which_port_is_taken(self):
        server, operators = self.start()
        _, port = address_of(operators)
        other = subprocess.run([OPTIONS.server, "serve", OPTIONS.model, *MOCK, "--port", "0",
                                "--metrics-port", str(port)], capture_output=True, text=True,
                               timeout=60, check=False)
        self.assertNotEqual(other.returncode, 0)
        self.assertIn(f"cannot listen on 127.0.0.1:{port}", other.stderr)
        self.assertEqual(server.stop(), 0)

    def test_refuses_a_port_of_its_own(self):
        for option in ("--port", "--rpc-port"):
            refused = subprocess.run([OPTIONS.server, "serve", OPTIONS.model, *MOCK, option, "18080",
                                      "--metrics-port", "18080"], capture_output=True, text=True,
                                     timeout=60, check=False)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn(f"--metrics-port 18080 is also {option}", refused.stderr)

    @unittest.skipIf(find_browser() is None, "no browser here")
    def test_the_page_shows_what_each_listener_has(self):
        server, operators = self.start()
        hidden = "[...document.querySelectorAll('main section')].map((e) => e.hidden).join()"
        with Browser() as browser:
            browser.open(operators + "/")
            browser.wait_for("document.querySelectorAll('.worker').length === 2")
            self.assertEqual(browser.run(hidden), "false,true")  # the cluster, no chat
            browser.open(server.url + "/")
            browser.wait_for("!document.getElementById('key-form').hidden")
            browser.type("#key", KEY)
            browser.wait_for("document.getElementById('model').textContent === 'demo_model'")
            browser.wait_for(hidden + " === 'true,false'")
            self.assertTrue(browser.run("document.getElementById('key-form').hidden"))
            browser.type("#prompt", "What can you do?")
            browser.wait_for("/ tokens,/.test(document.getElementById('answer-stats').textContent)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
