"""SIGTERM while an answer streams: the stream ends whole, new requests are refused, exit code 0.

Also: a clean stop logs no warning, a second signal ends the process at once, so does one while the model loads, SIGHUP rereads
the key file, keys are asked for.
"""
import argparse
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.error

from tessera_server import TesseraServer

OPTIONS = None
STREAM = {"prompt": "One day", "max_tokens": 400, "ignore_eos": True, "stream": True}


def open_stream(server, body=None):
    """A connection on which the answer has begun."""
    address = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {"Content-Type": "application/json"}
    if server.api_key:
        headers["Authorization"] = "Bearer " + server.api_key
    connection.request("POST", "/v1/completions", json.dumps(body or STREAM), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()}")
    response.readline()
    return connection, response


class DrainTest(unittest.TestCase):
    def start(self, *arguments, api_key=None):
        arguments = ["--kv-cache-memory", "64MiB", *arguments]
        return TesseraServer(OPTIONS.server, OPTIONS.model, api_key, arguments)

    def test_open_stream_ends_whole_and_exit_code_is_zero(self):
        with self.start() as server:
            connection, response = open_stream(server)
            server.signal(signal.SIGTERM)
            text = response.read().decode()
            connection.close()
            self.assertIn('"finish_reason":"length"', text.replace(": ", ":"))
            self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-200:])
            self.assertEqual(server.process.wait(30), 0)

    def test_a_clean_stop_warns_of_nothing(self):
        with self.start() as server:
            connection, response = open_stream(server, dict(STREAM, max_tokens=8))
            response.read()
            connection.close()
            before = len(server.read_log())
            self.assertEqual(server.stop(), 0)
            log = server.read_log()[before:]
            self.assertIn(" info stopped", log)
            self.assertNotRegex(log, " (warning|error) ")

    def test_new_requests_are_refused_while_draining(self):
        with self.start() as server:
            connection, response = open_stream(server)
            server.signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while " draining " not in server.read_log():
                self.assertLess(time.monotonic(), deadline)
            with self.assertRaises(urllib.error.HTTPError) as caught:
                server.get("/readyz")
            self.assertEqual(caught.exception.code, 503)
            caught.exception.close()
            response.read()
            connection.close()
            self.assertEqual(server.process.wait(30), 0)

    def test_shutdown_timeout_cuts_long_requests_off(self):
        with self.start("--shutdown-timeout", "1") as server:
            body = dict(STREAM, max_tokens=3500)
            connection, response = open_stream(server, body)
            started = time.monotonic()
            server.signal(signal.SIGTERM)
            text = response.read().decode()
            self.assertEqual(server.process.wait(30), 0)
            self.assertLess(time.monotonic() - started, 10)
            self.assertIn('"error"', text)
            self.assertTrue(text.rstrip().endswith("data: [DONE]"), text[-200:])
            connection.close()

    def test_second_signal_ends_at_once(self):
        with self.start() as server:
            connection, response = open_stream(server, dict(STREAM, max_tokens=3500))
            server.signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while " draining " not in server.read_log():
                self.assertLess(time.monotonic(), deadline)
            server.signal(signal.SIGTERM)
            self.assertEqual(server.process.wait(10), -signal.SIGTERM)
            response.close()
            connection.close()

    def test_a_signal_while_loading_ends_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "model")
            shutil.copytree(OPTIONS.model, model,
                            ignore=shutil.ignore_patterns("*.safetensors"))
            os.mkfifo(os.path.join(model, "model.safetensors"))  # loading waits for a writer
            command = [OPTIONS.server, "serve", model, "--port", "0"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                while " loading " not in process.stderr.readline():
                    self.assertIsNone(process.poll())
                process.send_signal(signal.SIGTERM)
                try:
                    self.assertEqual(process.wait(10), -signal.SIGTERM)
                finally:
                    process.kill()

    def test_keys_are_asked_for_and_reread_on_sighup(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("sk-old\n")
            keys.flush()
            with self.start("--api-key-file", keys.name) as server:
                self.assertEqual(self.status_with(server, None), 401)
                self.assertEqual(self.status_with(server, "sk-old"), 200)
                keys.seek(0)
                keys.truncate()
                keys.write("sk-new\n")
                keys.flush()
                server.signal(signal.SIGHUP)
                deadline = time.monotonic() + 10
                while " api_keys_reloaded " not in server.read_log():
                    self.assertLess(time.monotonic(), deadline)
                self.assertEqual(self.status_with(server, "sk-old"), 401)
                self.assertEqual(self.status_with(server, "sk-new"), 200)
                self.assertNotIn("sk-new", server.read_log())
                self.assertEqual(server.stop(), 0)

    @staticmethod
    def status_with(server, api_key):
        server.api_key = api_key
        try:
            return server.get("/v1/models")[0]
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
