#!/usr/bin/env python3
"""What thousands of concurrent streams cost: router, prefill worker and decode group as processes on
one machine, all on the mock engine, and `tessera bench` as the client.

  tools/bench/stream_load.py --server build/cpu-release/bin/tessera --model configs/demo_model

Opens --streams streams one after another, of --tokens-per-second each, and measures --seconds once
all of them are open: tokens per second through the router, failed requests, CPU time and resident
memory of each process, and how late tokens are: from the end of the decode step that made them (the
mock engine logs it) to their arrival at a few streams of this script's own, which are opened in
between the others. All processes read the same steady clock. A step makes a token of every stream at
the same moment, so the median is half the time that all of them take.
"""
import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))
from cluster import Cluster  # noqa: E402

STEP = re.compile(r" mock_step .*\brows=(\d+) at_us=(\d+)")
TICKS = os.sysconf("SC_CLK_TCK")
PROMPT_TOKENS = 32


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Probe:
    """A few streams whose tokens are stamped as they arrive."""

    def __init__(self, options, url, num_tokens):
        self.options = options
        self.host, self.port = url.removeprefix("http://").split(":")
        self.num_tokens = num_tokens
        self.arrivals = []  # seconds on the steady clock
        self.faults = []

    async def run(self):
        """Ends when it is cancelled."""
        ramp = self.options.streams / self.options.ramp
        await asyncio.gather(*(self._stream(ramp * (i + 0.5) / self.options.probes)
                               for i in range(self.options.probes)))

    async def _stream(self, delay):
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(self.host, int(self.port))
        body = json.dumps({"prompt": [random.randrange(5, 1000) for _ in range(PROMPT_TOKENS)],
                           "max_tokens": self.num_tokens, "temperature": 0, "ignore_eos": True,
                           "stream": True})
        writer.write((f"POST /v1/completions HTTP/1.1\r\nHost: {self.host}\r\n"
                      f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                      f"{body}").encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"data: {"):
                    self.arrivals.append(time.monotonic())
                    if b'"error"' in line:
                        self.faults.append(line.decode())
        finally:
            writer.close()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start_cluster(options):
    # The probes need seats too, and requests come while others leave.
    seats = options.streams + options.probes + 64
    blocks = (PROMPT_TOKENS + num_tokens(options)) // 64 + 4
    worker = ["--engine", "mock", "--mock-decode-step-ms", str(round(1000 / options.tokens_per_second)),
              "--mock-prefill-tokens-per-s", "1000000", "--max-num-seqs", str(seats),
              "--max-num-batched-tokens", str(max(16384, seats)), "--max-queued-requests",
              str(seats), "--num-blocks", str(blocks * seats)]
    return Cluster(options.server, options.model, prefill=worker,
                   decode=[*worker, "--tensor-parallel-size", "1", "--log-level", "trace"],
                   router=["--max-inflight-requests", str(2 * seats)])


def num_tokens(options):
    """Of a stream: it lives as long as all take to open, and the measurement."""
    seconds = options.streams / options.ramp + options.seconds + 10
    return int(seconds * options.tokens_per_second)


def start_client(options, url, report):
    return subprocess.Popen(
        [options.server, "bench", "--url", url, "--rate", str(options.ramp), "--arrivals",
         "constant", "--requests", str(options.streams), "--duration", "0", "--input-tokens",
         str(PROMPT_TOKENS), "--output-tokens", str(num_tokens(options)), "--token-ids", "5:1000",
         "--json", report])


async def wait_until_open(options, cluster, client):
    wanted = options.streams + options.probes
    while await asyncio.to_thread(cluster.decodes[0].metric, "tessera_requests_running") < wanted:
        if client.poll() is not None:
            sys.exit(f"the client ended with {client.returncode} before all streams were open")
        await asyncio.sleep(0.5)


async def measure(options, cluster, client, probe):
    """What changes in the time of the measurement."""
    running = asyncio.create_task(probe.run())
    await wait_until_open(options, cluster, client)
    processes = {"client": client.pid, "router": cluster.router.pid,
                 "prefill": cluster.prefills[0].pid, "decode": cluster.decodes[0].pid,
                 "probes": os.getpid()}

    def sample():
        return {"at": time.monotonic(),
                "tokens": cluster.router.metric("tessera_router_generation_tokens_total"),
                "failed": cluster.router.metric("tessera_router_requests_failed_total"),
                "cpu": {name: cpu_seconds(pid) for name, pid in processes.items()}}

    begin = await asyncio.to_thread(sample)
    await asyncio.sleep(options.seconds)
    end = await asyncio.to_thread(sample)
    memory = {role.role: role.resident_bytes() for role in cluster.roles}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return begin, end, memory


def late_times(cluster, probe, begin, end):
    """Milliseconds from the end of its step to the arrival of each token of the probes."""
    steps = [int(found.group(2)) / 1e6 for found in map(
        STEP.search, cluster.decodes[0].read_log().splitlines()) if found]
    late = []
    index = 0
    for at in sorted(at for at in probe.arrivals if begin["at"] <= at <= end["at"]):
        while index + 1 < len(steps) and steps[index + 1] <= at:
            index += 1
        late.append((at - steps[index]) * 1e3)
    inside = [at for at in steps if begin["at"] <= at <= end["at"]]
    periods = [(right - left) * 1e3 for left, right in zip(inside, inside[1:])]
    return late, periods


def show(options, idle, measured, late, periods, report):
    begin, end, memory = measured
    seconds = end["at"] - begin["at"]
    print(f"{options.streams + options.probes} streams, {seconds:.1f} s:")
    print(f"  tokens per second        {(end['tokens'] - begin['tokens']) / seconds:.0f}")
    print(f"  decode step              median {percentile(periods, 0.5):.1f} ms, wanted "
          f"{1000 / options.tokens_per_second:.0f}")
    print(f"  token late by            first of a step {percentile(late, 0.0):.1f} ms, median "
          f"{percentile(late, 0.5):.1f}, p99 {percentile(late, 0.99):.1f} ({len(late)} tokens)")
    print("  cores                    " + ", ".join(
        f"{name} {(end['cpu'][name] - before) / seconds:.2f}"
        for name, before in begin["cpu"].items()))
    print("  memory a stream          " + ", ".join(
        f"{role} {(memory[role] - idle[role]) / (options.streams + options.probes) / 1024:.1f} KiB"
        for role in memory))
    print(f"  requests failed          {report['failed']} of {options.streams} "
          f"(client), {end['failed']:.0f} (router)")
    print(f"  client                   ITL median {report['median_itl_ms']:.1f} ms, p99 "
          f"{report['p99_itl_ms']:.1f}; its loop late by median {report['median_loop_lag_ms']:.2f}, p99 "
          f"{report['p99_loop_lag_ms']:.2f}; " + ("valid" if report["is_valid"] else "invalid"))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--tokens-per-second", type=float, default=2.1,
                        help="of each stream; the engine's own work between steps comes on top")
    parser.add_argument("--ramp", type=float, default=250.0, help="streams opened a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--probes", type=int, default=20, help="streams that stamp their tokens")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile(suffix=".json") as file, start_cluster(options) as cluster:
        cluster.complete({"prompt": "warm", "max_tokens": 2})
        idle = {role.role: role.resident_bytes() for role in cluster.roles}
        probe = Probe(options, cluster.router.url, num_tokens(options))
        with start_client(options, cluster.router.url, file.name) as client:
            try:
                measured = asyncio.run(measure(options, cluster, client, probe))
                client.wait()
            finally:
                client.kill()
        late, periods = late_times(cluster, probe, *measured[:2])
        report = json.loads(Path(file.name).read_text(encoding="utf-8"))
        show(options, idle, measured, late, periods, report)
        for fault in probe.faults[:5]:
            print(fault)
        if probe.faults or report["failed"] or report["completed"] != options.streams:
            sys.exit(1)


if __name__ == "__main__":
    main()
