"""The configurations of the overlay dev-cpu, as rendered, start the real roles, which find each other
by name and serve a request with the overlay's key. And nginx of the component tls in front of them, where
there is an nginx."""
import base64
import json
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import flags
import policy
from rendering import DEPLOY, ROOT, find_program, kustomize, run

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
from cluster import RoleProcess, free_ports  # noqa: E402  (of the e2e tests)

OVERLAYS = DEPLOY / "kustomize" / "overlays"
MODEL = str(ROOT / "configs" / "demo_model")
BODY = json.dumps({"model": "demo_model", "prompt": "Once upon a time", "max_tokens": 8}).encode()


class RolesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        objects = kustomize(OVERLAYS / "dev-cpu")
        secret = policy.of_kind(objects, "Secret")[0]["data"]["keys"]
        cls.key = base64.b64decode(secret).decode().strip()
        keys = cls.write("keys", cls.key)
        for one in policy.of_kind(objects, "ConfigMap"):
            for name, text in one["data"].items():
                cls.write(name, text)
        prefill, decode = (cls.start(role) for role in ("prefill", "decode"))
        cls.router = cls.start(
            "router", "--api-key-file", keys,
            "--prefill-workers", f"dns:localhost:{prefill.rpc_port}",
            "--decode-workers", f"dns:localhost:{decode.rpc_port}")
        for role in (prefill, decode, cls.router):
            role.wait_until_ready()

    @classmethod
    def write(cls, name, text):
        path = Path(cls.folder.name) / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    @classmethod
    def start(cls, role, *arguments):
        # Addresses, ports and the model's folder are of this machine; the rest is the file's.
        process = RoleProcess(flags.server(), role, MODEL,
                              ["--config", f"{cls.folder.name}/{role}.json", "--host", "127.0.0.1",
                               "--rpc-host", "127.0.0.1", *arguments])
        cls.addClassCleanup(process.log.close)
        cls.addClassCleanup(process.kill)
        process.start()
        return process

    def post(self, url, key, context=None):
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        request = urllib.request.Request(f"{url}/v1/completions", BODY, headers)
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            return json.load(response)

    def test_serve_with_the_key_of_the_overlay(self):
        self.assertEqual(self.post(self.router.url, self.key)["usage"]["completion_tokens"], 8)

    def test_refuse_without_the_key(self):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.post(self.router.url, None)
        self.assertEqual(caught.exception.code, 401)

    def test_serve_behind_the_proxy_of_the_component_tls(self):
        nginx, openssl = find_program("nginx"), find_program("openssl")
        if nginx is None or openssl is None:
            self.skipTest("not run: no nginx or no openssl here")
        folder = self.folder.name
        run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"], check=True)
        port, rpc_port = free_ports(2)
        text = (DEPLOY / "kustomize" / "components" / "tls" / "nginx.conf").read_text(encoding="utf-8")
        for old, new in ((" /tmp/", f" {folder}/"), ("/etc/tls/", f"{folder}/"),
                         ("listen 8443", f"listen 127.0.0.1:{port}"),
                         ("listen 9443", f"listen 127.0.0.1:{rpc_port}"),
                         ("127.0.0.1:8000", f"127.0.0.1:{self.router.http_port}"),
                         ("127.0.0.1:9000", self.router.rpc_address)):
            self.assertIn(old, text)
            text = text.replace(old, new)
        config = self.write("nginx.conf", text)
        checked = run([nginx, "-t", "-c", config])
        self.assertEqual(checked.returncode, 0, checked.stderr)
        proxy = subprocess.Popen([nginx, "-c", config], stderr=subprocess.DEVNULL)
        self.addCleanup(proxy.wait, 20)
        self.addCleanup(proxy.terminate)
        context = ssl.create_default_context(cafile=f"{folder}/tls.crt")
        answer = self.ask_when_up(f"https://localhost:{port}", context)
        self.assertEqual(answer["usage"]["completion_tokens"], 8)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"https://localhost:{port}/metrics", timeout=10, context=context)
        self.assertEqual(caught.exception.code, 404)

    def ask_when_up(self, url, context):
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.post(url, self.key, context)
            except urllib.error.URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # polls another process: there is nothing to wait on


if __name__ == "__main__":
    unittest.main(verbosity=2)
