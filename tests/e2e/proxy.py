"""HAProxy with the configuration that users are given, in front of routers of a test."""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from cluster import free_ports

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy/proxy/haproxy.cfg"


class Proxy:
    """`with Proxy([port, port]) as proxy:` serves at proxy.url; one port stands for both routers."""

    def __init__(self, router_ports):
        (self.port,) = free_ports(1)
        routers = [f"127.0.0.1:{port}" for port in router_ports]
        self.environment = {**os.environ, "TESSERA_LISTEN": f"127.0.0.1:{self.port}",
                            "TESSERA_ROUTER_1": routers[0], "TESSERA_ROUTER_2": routers[-1]}
        self.log = tempfile.NamedTemporaryFile(prefix="haproxy_", suffix=".log")
        self.process = None

    @staticmethod
    def program():
        """The package puts it where only root looks."""
        return shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")

    @staticmethod
    def is_here():
        return Proxy.program() is not None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def read_log(self):
        return Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def __enter__(self):
        self.process = subprocess.Popen([self.program(), "-db", "-f", CONFIGURATION],
                                        stdout=self.log, stderr=self.log, env=self.environment)
        try:
            self._wait_until_ready(time.monotonic() + 20)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print("--- log of the proxy (end) ---", self.read_log()[-4000:], sep="\n", file=sys.stderr)
        self.process.kill()
        self.process.wait()
        self.log.close()

    def _wait_until_ready(self, deadline):
        """Polls: the proxy does not say when its first checks of the routers are done."""
        while True:
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=5):
                    return
            except (OSError, urllib.error.URLError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the proxy does not serve") from error
            time.sleep(0.05)
