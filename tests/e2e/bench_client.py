"""`tessera bench` as a process: what it reports, and whether it says so rightly."""
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path


class BenchClient:
    """`with BenchClient(binary, url, "--rate", 5) as client:` runs until wait() or interrupt()."""

    def __init__(self, binary, url, *arguments):
        self.folder = tempfile.TemporaryDirectory(prefix="tessera_bench_")
        folder = Path(self.folder.name)
        self.json_path, self.html_path, self.records_path = (
            folder / name for name in ("report.json", "report.html", "records.jsonl"))
        self.log = open(folder / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [binary, "bench", url, *map(str, arguments), "--json", self.json_path, "--html",
             self.html_path, "--records", self.records_path], stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(self.output())
        self.log.close()
        self.folder.cleanup()

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def wait(self, seconds=60.0):
        """The exit code."""
        return self.process.wait(seconds)

    def interrupt(self, seconds=30.0):
        """As Ctrl-C: open requests are given up, what was measured is reported."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def hold_up(self, stopped=0.03, running=0.01, seconds=60.0):
        """Lets the process run only now and then, until it ends."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(stopped)  # the delay is what is tried here
            self.process.send_signal(signal.SIGCONT)
            time.sleep(running)
        return self.process.wait(1)

    def report(self):
        return json.loads(self.json_path.read_text(encoding="utf-8"))

    def records(self):
        return [json.loads(line) for line in self.records_path.read_text(encoding="utf-8").splitlines()]

    def page(self):
        return self.html_path.read_text(encoding="utf-8")
