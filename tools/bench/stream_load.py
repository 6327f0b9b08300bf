#!/usr/bin/env python3
"""What thousands of concurrent streams cost: router, prefill worker and decode group as processes on
one machine, all on the mock engine, and `tessera bench` as the client.

  tools/bench/stream_load.py --server build/cpu-release/bin/tessera --model configs/demo_model

Opens --streams streams one after another and measures --seconds once all of them are open: tokens per
second through the router, failed requests, CPU time and resident memory of each process, and how late
tokens are: from the end of the decode step that made them (the mock engine logs it) to their arrival
at the client; all processes read the same steady clock. A step makes a token of every stream at the
same moment, so the median is half the time that all of them take. Exits with 1 when a request fails,
when a stream does not get its tokens, or when fewer than --streams times --tokens-per-second come.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stream_times import (cpu_seconds, late_ms, percentile, step_ends, token_times,
                          tokens_per_second)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))
from cluster import Cluster  # noqa: E402

PROMPT_TOKENS = 32
# The mock engine's step is so much shorter than asked for: its own work comes on top of it.
ENGINE_SHARE = 0.05


def start_cluster(options):
    seats = options.streams + 64  # requests come while others leave
    blocks = (PROMPT_TOKENS + num_tokens(options)) // 64 + 4
    step_ms = round(1000 / options.tokens_per_second * (1 - ENGINE_SHARE))
    worker = ["--engine", "mock", "--mock-decode-step-ms", str(step_ms),
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


def start_client(options, url, folder):
    return subprocess.Popen(
        [options.server, "bench", "--url", url, "--rate", str(options.ramp), "--arrivals",
         "constant", "--requests", str(options.streams), "--duration", "0", "--input-tokens",
         str(PROMPT_TOKENS), "--output-tokens", str(num_tokens(options)), "--token-ids", "5:1000",
         "--json", f"{folder}/report.json", "--records", f"{folder}/records.jsonl"])


def wait_until_open(options, cluster, client):
    while cluster.decodes[0].metric("tessera_requests_running") < options.streams:
        if client.poll() is not None:
            sys.exit(f"the client ended with {client.returncode} before all streams were open")
        time.sleep(0.5)  # polls another process


def measure(options, cluster, client):
    """What changes in the time of the measurement."""
    wait_until_open(options, cluster, client)
    processes = {"client": client.pid, "router": cluster.router.pid,
                 "prefill": cluster.prefills[0].pid, "decode": cluster.decodes[0].pid}

    def sample():
        return {"at": time.monotonic(),
                "failed": cluster.router.metric("tessera_router_requests_failed_total"),
                "cpu": {name: cpu_seconds(pid) for name, pid in processes.items()}}

    begin = sample()
    time.sleep(options.seconds)  # the measurement
    end = sample()
    return begin, end, {role.role: role.resident_bytes() for role in cluster.roles}


def show(options, idle, measured, steps, streams, report):
    begin, end, memory = measured
    seconds = end["at"] - begin["at"]
    rate = tokens_per_second(streams, begin["at"], end["at"])
    late = late_ms(streams, steps, begin["at"], end["at"])
    inside = [at for at in steps if begin["at"] <= at <= end["at"]]
    periods = [(right - left) * 1e3 for left, right in zip(inside, inside[1:])]
    wanted = options.streams * options.tokens_per_second
    print(f"{options.streams} streams, {seconds:.1f} s:")
    print(f"  tokens per second        {rate:.0f}, wanted {wanted:.0f}")
    print(f"  decode step              median {percentile(periods, 0.5):.1f} ms, wanted "
          f"{1000 / options.tokens_per_second:.0f}")
    print(f"  token late by            first of a step {percentile(late, 0.0):.1f} ms, median "
          f"{percentile(late, 0.5):.1f}, p99 {percentile(late, 0.99):.1f}, max "
          f"{percentile(late, 1.0):.1f} ({len(late)} tokens)")
    print("  cores                    " + ", ".join(
        f"{name} {(end['cpu'][name] - before) / seconds:.2f}"
        for name, before in begin["cpu"].items()))
    print("  memory a stream          " + ", ".join(
        f"{role} {(memory[role] - idle[role]) / options.streams / 1024:.1f} KiB"
        for role in memory))
    print(f"  requests failed          {report['failed']} of {options.streams} "
          f"(client), {end['failed']:.0f} (router)")
    print(f"  client                   ITL median {report['median_itl_ms']:.1f} ms, p99 "
          f"{report['p99_itl_ms']:.1f}; its loop late by median {report['median_loop_lag_ms']:.2f}, p99 "
          f"{report['p99_loop_lag_ms']:.2f}; " + ("valid" if report["is_valid"] else "invalid"))
    return faults_of(options, report, rate, wanted)


def faults_of(options, report, rate, wanted):
    """What was not as asked for. A burst may make the client's own figures invalid: that is none."""
    if rate < wanted:
        yield (f"target missed: {rate:.0f} tokens/s of {wanted:.0f}; the machine is too slow for "
               f"{options.streams} streams, or was busy")
    if report["completed"] != options.streams:
        yield f"{report['completed']} of {options.streams} requests were completed: {report['error_counts']}"
    if abs(report["tokens_per_event"] - 1) > 1e-3:
        yield f"{report['tokens_per_event']:.3f} tokens an event: how late each was cannot be said"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--tokens-per-second", type=float, default=2.0, help="of each stream")
    parser.add_argument("--ramp", type=float, default=250.0, help="streams opened a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, start_cluster(options) as cluster:
        cluster.complete({"prompt": "warm", "max_tokens": 2})
        idle = {role.role: role.resident_bytes() for role in cluster.roles}
        with start_client(options, cluster.router.url, folder) as client:
            try:
                measured = measure(options, cluster, client)
                client.wait()
            finally:
                client.kill()
        steps = step_ends(cluster.decodes[0].read_log())
        streams = token_times(f"{folder}/report.json", f"{folder}/records.jsonl")
        report = json.loads(Path(f"{folder}/report.json").read_text(encoding="utf-8"))
        faults = list(show(options, idle, measured, steps, streams, report))
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
