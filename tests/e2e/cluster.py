"""Roles of the binary as separate processes on loopback, for tests that kill, stop and restart them.

`with Cluster(binary, model) as cluster:` starts one prefill worker, one decode group and one router,
each on ports that stay the same when the role is restarted.
"""
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


GIVEN_PORTS = set()


def free_ports(count):
    """Ports that nobody has now and that were not given before. Below those that the system gives to
    outgoing connections, so that none of these takes one before its role listens."""
    ports = []
    while len(ports) < count:
        port = random.randrange(20000, 32000)
        if port in GIVEN_PORTS:
            continue
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        GIVEN_PORTS.add(port)
        ports.append(port)
    return ports


class RoleProcess:
    """One process of one role. start() may be called again after kill() or stop()."""

    def __init__(self, binary, role, model, arguments=(), environment=None):
        self.role = role
        self.http_port, self.rpc_port = free_ports(2)
        self.command = [binary, role, model, "--port", str(self.http_port), "--rpc-port",
                        str(self.rpc_port), *arguments]
        self.environment = {**os.environ, **(environment or {})}
        self.log = tempfile.NamedTemporaryFile(prefix=f"tessera_{role}_", suffix=".log")
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def rpc_address(self):
        return f"127.0.0.1:{self.rpc_port}"

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log,
                                        env=self.environment)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def read_log(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    def get(self, path, timeout=10.0):
        with urllib.request.urlopen(self.url + path, timeout=timeout) as response:
            return response.status, response.read().decode()

    def is_ready(self):
        try:
            return self.get("/readyz", timeout=2.0)[0] == 200
        except (OSError, urllib.error.URLError):
            return False

    def wait_until_ready(self, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if not self.is_running():
                raise RuntimeError(f"{self.role} ended with {self.process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.role} was not ready within {seconds} s")
            time.sleep(0.05)  # polls another process: there is nothing to wait on

    def metric(self, name, **labels):
        """The sum over the series of one metric that have all of `labels`."""
        values = []
        for line in self.get("/metrics")[1].splitlines():
            if not re.match(re.escape(name) + r"[ {]", line):
                continue
            if all(f'{key}="{value}"' in line for key, value in labels.items()):
                values.append(float(line.rsplit(" ", 1)[1]))
        if not values:
            raise KeyError(f"{self.role}: /metrics has no {name} with {labels}")
        return sum(values)

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout=60.0):
        """SIGTERM, then the exit code."""
        if self.is_running():
            self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def show_log(self, lines=40):
        print(f"--- log of {self.role} (end) ---", file=sys.stderr)
        print("\n".join(self.read_log().splitlines()[-lines:]), file=sys.stderr)


class Cluster:
    """Prefill workers, decode groups and routers, of which most tests need one."""

    def __init__(self, binary, model, prefill=(), decode=(), router=(), num_prefill=1, num_decode=1,
                 num_routers=1, common=(), environment=None, decode_environment=None):
        def make(role, arguments, variables):
            return RoleProcess(binary, role, model, [*common, *arguments], variables)

        self.prefills = [make("prefill", prefill, environment) for _ in range(num_prefill)]
        self.decodes = [make("decode", decode, {**(environment or {}), **(decode_environment or {})})
                        for _ in range(num_decode)]
        workers = []
        for worker in self.prefills:
            workers += ["--prefill-workers", worker.rpc_address]
        for worker in self.decodes:
            workers += ["--decode-workers", worker.rpc_address]
        self.routers = [RoleProcess(binary, "router", model, [*workers, *router], environment)
                        for _ in range(num_routers)]

    @property
    def router(self):
        return self.routers[0]

    @property
    def workers(self):
        return [*self.prefills, *self.decodes]

    @property
    def roles(self):
        return [*self.workers, *self.routers]

    def __enter__(self):
        try:
            for role in self.roles:
                role.start()
            for role in self.roles:
                role.wait_until_ready()
        except BaseException:
            self._end(show_logs=True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        self._end(show_logs=kind is not None)

    def _end(self, show_logs):
        for role in self.roles:
            if show_logs:
                role.show_log()
            if role.is_running():
                role.signal(signal.SIGCONT)
                role.kill()
            role.log.close()

    def complete(self, body, timeout=60.0):
        """The JSON answer of POST /v1/completions; raises HTTPError beyond 399."""
        return complete(self.router.url, body, timeout)

    def wait_for_rest(self, seconds=15.0):
        """Waits until no worker holds or awaits anything; the gauges that are not zero then."""
        deadline = time.monotonic() + seconds
        while True:
            left = {}
            for index, worker in enumerate(self.workers):
                for name in REST_GAUGES:
                    value = worker.metric(name)
                    if value:
                        left[f"{worker.role} {index} {name}"] = value
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)


REST_GAUGES = ("tessera_requests_running", "tessera_requests_waiting", "tessera_cache_blocks_used",
               "tessera_handoff_reservations", "tessera_handoff_reserved_blocks",
               "tessera_handoff_pinned_blocks")


def complete(url, body, timeout=60.0):
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.loads(response.read())
