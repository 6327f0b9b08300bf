"""Starts the built server for a test, waits until it is ready, and stops it."""
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

LISTENING = re.compile(r" listening .*\burl=(\S+)")


class TesseraServer:
    """`with TesseraServer(binary, model, ...) as server:` gives server.url, .pid and .stop()."""

    def __init__(self, binary, model, api_key=None, arguments=(), ready_seconds=60.0):
        command = [binary, "serve", model, "--port", "0", *arguments]
        if api_key:
            command += ["--api-key", api_key]
        self.api_key = api_key
        self.log = tempfile.NamedTemporaryFile(prefix="tessera_e2e_", suffix=".log")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.url = ""
        try:
            self._wait_until_ready(time.monotonic() + ready_seconds)
        except BaseException:
            self._show_log()
            self.process.kill()
            self.process.wait()
            raise

    @property
    def pid(self):
        return self.process.pid

    def read_log(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def get(self, path, timeout=10.0):
        """Status and body text of a GET; raises urllib.error.HTTPError beyond 399."""
        request = urllib.request.Request(self.url + path)
        if self.api_key:
            request.add_header("Authorization", "Bearer " + self.api_key)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, response.read().decode()

    def metric(self, name):
        """The sum over all series of one metric."""
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics")[1].splitlines()
                  if re.match(re.escape(name) + r"[ {]", line)]
        if not values:
            raise KeyError(f"/metrics has no {name}")
        return sum(values)

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, timeout=60.0):
        """SIGTERM, then the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self._show_log()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _wait_until_ready(self, deadline):
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            found = LISTENING.search(self.read_log())
            if found:
                self.url = found.group(1)
                try:
                    self.get("/readyz")
                    return
                except urllib.error.HTTPError as error:  # the router's workers are not there yet
                    error.close()
            time.sleep(0.05)  # polls another process's log: there is nothing to wait on
        raise TimeoutError("the server was not ready in time")

    def _show_log(self):
        print("--- server log (end) ---", file=sys.stderr)
        print("\n".join(self.read_log().splitlines()[-40:]), file=sys.stderr)
