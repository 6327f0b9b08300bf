#!/usr/bin/env python3
"""What a router costs, beside other routers in the same run: each on one processor, in front of mock
engines, `tessera bench` as the client on the other processor.

  tools/bench/router_compare.py --server build/cpu-release/bin/tessera --model configs/demo_model \\
      --other-router 'NAME=COMMAND with {port} and {worker}'

Tessera's router has a prefill worker and a decode group behind it (gRPC), another router one combined
engine (OpenAI's HTTP): {worker} is its URL. Both engines make the same tokens at the same pace. That
combined engine is also measured without a router. Measures, of each:
  latency   a moderate load: from the end of the engine's step to the client having its token. The
            engine's own is that without a router; what a router adds is the difference. All take
            turns; the medians of --rounds count, and their ranges are shown
  rate      more streams step by step: events (of one token) a second that arrive, and the router's
            processor time. What one core sustains is what arrives while it is full; where it never
            is, it is computed from the router's time an event, and so marked
  memory    resident memory of the router with many open streams, less that before
"""
import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from stream_times import (cpu_seconds, late_ms, percentile, resident_bytes, step_ends, token_times,
                          tokens_per_second)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))
from cluster import Cluster, RoleProcess, free_ports  # noqa: E402

PROMPT_TOKENS = 16
FULL_CORE = 0.93
OPENING_S = 2.0  # until all streams run


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--other-router", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--parts", nargs="+", default=["latency", "rate", "memory"],
                        choices=["latency", "rate", "memory"])
    parser.add_argument("--router-cpu", type=int, default=0)
    parser.add_argument("--other-cpu", type=int, default=1, help="of engines and client")
    parser.add_argument("--step-ms", type=int, default=20, help="of the engine")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a measurement")
    parser.add_argument("--streams", type=int, nargs="+", default=[200, 400, 600, 800],
                        help="of the rate's steps")
    parser.add_argument("--rounds", type=int, default=3, help="of the latency")
    parser.add_argument("--latency-streams", type=int, default=50)
    parser.add_argument("--memory-streams", type=int, default=1500)
    return parser.parse_args()


def pinned(cpu, command):
    return ["taskset", "-c", str(cpu), *map(str, command)]


def tree_of(pid):
    """A process and those that it started: a launcher may be another one than the router."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                children = Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii")
                found += map(int, children.split())
    return found


class Target:
    """Something to put load on: `url`, the process ids of its router, the engine whose steps count."""

    def __init__(self, name, url, router_pid, engine, engines):
        self.name, self.url, self.router_pid, self.engine = name, url, router_pid, engine
        self.engines = engines

    def router_cpu(self):
        return sum(map(cpu_seconds, tree_of(self.router_pid))) if self.router_pid else 0.0

    def router_memory(self):
        return sum(map(resident_bytes, tree_of(self.router_pid))) if self.router_pid else 0


def engine_arguments(step_ms):
    return ["--engine", "mock", "--mock-decode-step-ms", str(step_ms), "--mock-prefill-tokens-per-s",
            "1000000", "--max-num-seqs", "4096", "--max-num-batched-tokens", "16384",
            "--max-queued-requests", "4096", "--num-blocks", "40000", "--log-level", "trace"]


@contextlib.contextmanager
def tessera_router(options, step_ms):
    worker = engine_arguments(step_ms)
    cluster = Cluster(options.server, options.model, prefill=worker,
                      decode=[*worker, "--tensor-parallel-size", "1"])
    for role in cluster.roles:
        cpu = options.router_cpu if role.role == "router" else options.other_cpu
        role.command = pinned(cpu, role.command)
    with cluster:
        yield Target("tessera", cluster.router.url, cluster.router.pid, cluster.decodes[0],
                     cluster.workers)


@contextlib.contextmanager
def combined_engine(options, step_ms):
    engine = RoleProcess(options.server, "serve", options.model,
                         ["--combined", "--max-inflight-requests", "8192", *engine_arguments(step_ms)])
    engine.command = pinned(options.other_cpu, engine.command)
    try:
        engine.start()
        engine.wait_until_ready()
        yield Target("no router", engine.url, None, engine, [engine])
    finally:
        engine.kill()
        engine.log.close()


def wait_until_serving(process, url, body, seconds=60.0):
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5.0) as response:
                response.read()
                return
        except (OSError, urllib.error.URLError):
            if process.poll() is not None:
                raise RuntimeError(f"the router ended with {process.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)  # polls another process


@contextlib.contextmanager
def other_router(options, step_ms, name, command):
    with combined_engine(options, step_ms) as engine, tempfile.NamedTemporaryFile() as log:
        port = free_ports(1)[0]
        words = shlex.split(command.format(port=port, worker=engine.url))
        process = subprocess.Popen(pinned(options.router_cpu, words), stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_serving(process, url, {"model": model_name(options), "max_tokens": 2,
                                              "messages": [{"role": "user", "content": "warm"}]})
            yield Target(name, url, process.pid, engine.engine, engine.engines)
        except BaseException:
            print(Path(log.name).read_text(encoding="utf-8", errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            for pid in reversed(tree_of(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()


def model_name(options):
    return Path(options.model).resolve().name


def targets(options, with_direct):
    """Names, and what starts each."""
    made = [("no router", combined_engine)] if with_direct else []
    made.append(("tessera", tessera_router))
    for one in options.other_router:
        name, _, command = one.partition("=")
        made.append((name, lambda options, step_ms, name=name, command=command: other_router(
            options, step_ms, name, command)))
    return made


def load(options, target, streams, step_ms, seconds):
    """All streams at once; figures of the time in which all of them run."""
    tokens = int((OPENING_S + seconds + 1.0) * 1000 / step_ms)
    with tempfile.TemporaryDirectory() as folder:
        cpu = {}
        client = subprocess.Popen(
            pinned(options.other_cpu, [
                options.server, "bench", target.url, "--api", "chat", "--model", model_name(options),
                "--concurrency", streams, "--requests", streams, "--duration", 0, "--input-tokens",
                PROMPT_TOKENS, "--output-tokens", tokens, "--json", f"{folder}/report.json",
                "--records", f"{folder}/records.jsonl"]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(OPENING_S)
            cpu["begin"] = sample(target, client)
            time.sleep(seconds)  # the measurement
            cpu["end"] = sample(target, client)
            memory = target.router_memory()
            client.wait(120)
        finally:
            client.kill()
            client.wait()
        report = json.loads(Path(f"{folder}/report.json").read_text(encoding="utf-8"))
        arrivals = token_times(f"{folder}/report.json", f"{folder}/records.jsonl")
    return figures(target, report, arrivals, cpu, memory)


def sample(target, client):
    return {"at": time.monotonic(), "router": target.router_cpu(), "client": cpu_seconds(client.pid),
            "engines": sum(cpu_seconds(one.pid) for one in target.engines)}


def figures(target, report, arrivals, cpu, memory):
    begin, end = cpu["begin"], cpu["end"]
    seconds = end["at"] - begin["at"]
    late = late_ms(arrivals, step_ends(target.engine.read_log()), begin["at"], end["at"])
    return {"rate": tokens_per_second(arrivals, begin["at"], end["at"]), "late": late, "memory": memory,
            "failed": report["failed"] + report["unfinished"], "error_counts": report["error_counts"],
            "tokens_per_event": report["tokens_per_event"],
            **{name: (end[name] - begin[name]) / seconds for name in ("router", "client", "engines")}}


def measure_latency(options):
    streams = options.latency_streams
    print(f"\nlatency: {streams} streams, {1000 / options.step_ms * streams:.0f} tokens/s; milliseconds "
          f"from the end of the step")
    print(f"{'':<14} {'p50':>18} {'p99':>18} {'added p50':>10} {'added p99':>10} {'tokens':>7} {'failed':>6}")
    rounds = {}
    for _ in range(options.rounds):
        for name, start in targets(options, with_direct=True):
            with start(options, options.step_ms) as target:
                rounds.setdefault(name, []).append(
                    load(options, target, streams, options.step_ms, options.seconds))
    own = None
    for name, results in rounds.items():
        shares = [sorted(percentile(one["late"], share) for one in results) for share in (0.5, 0.99)]
        here = [statistics.median(values) for values in shares]
        own = own or here
        texts = [f"{middle:.2f} ({values[0]:.2f}-{values[-1]:.2f})"
                 for middle, values in zip(here, shares, strict=True)]
        print(f"{name:<14} {texts[0]:>18} {texts[1]:>18} {here[0] - own[0]:>10.2f} "
              f"{here[1] - own[1]:>10.2f} {sum(len(one['late']) for one in results):>7} "
              f"{sum(one['failed'] for one in results):>6}", flush=True)


def measure_rate(options):
    print(f"\nrate: streams of {1000 / options.step_ms:.0f} tokens/s; cores of the router, of engines and "
          f"client; microseconds of the router an event")
    print(f"{'':<14} {'streams':>7} {'events/s':>9} {'router':>7} {'engines':>8} {'client':>7} {'us':>6} "
          f"{'late p50':>8} {'p99':>7} {'failed':>6}")
    best = {}
    for name, start in targets(options, with_direct=False):
        for streams in options.streams:
            with start(options, options.step_ms) as target:
                result = load(options, target, streams, options.step_ms, options.seconds)
            cost_us = result["router"] / max(result["rate"], 1.0) * 1e6
            print(f"{name:<14} {streams:>7} {result['rate']:>9.0f} {result['router']:>7.2f} "
                  f"{result['engines']:>8.2f} {result['client']:>7.2f} {cost_us:>6.1f} "
                  f"{percentile(result['late'], 0.5):>8.1f} {percentile(result['late'], 0.99):>7.1f} "
                  f"{result['failed']:>6} {remark(result)}", flush=True)
            if result["failed"] == 0:
                best.setdefault(name, []).append((result["rate"], result["router"], cost_us))
    print("one core of the router sustains:")
    for name, steps in best.items():
        print(f"  {name:<12} {sustained(steps)}")


def remark(result):
    """What makes the figures of a step another thing than they seem."""
    if result["failed"]:
        return str(result["error_counts"])[:60]
    if abs(result["tokens_per_event"] - 1) > 1e-3:
        return f"{result['tokens_per_event']:.2f} tokens an event"
    return ""


def sustained(steps):
    """Of (events/s, cores of the router, microseconds an event) step by step."""
    full = [rate for rate, router, _ in steps if router >= FULL_CORE]
    if full:
        return f"{max(full):.0f} events/s, measured"
    rate, router, cost_us = max(steps)
    return (f"{1e6 / cost_us:.0f} events/s, computed from {cost_us:.1f} us an event: {rate:.0f} events/s took "
            f"{router:.2f} of it, and more did not come")


def measure_memory(options):
    print(f"\nmemory: {options.memory_streams} streams of 2 tokens/s")
    for name, start in targets(options, with_direct=False):
        with start(options, 500) as target:
            load(options, target, 1, 500, 0.5)  # what the first request takes is no stream's
            before = target.router_memory()
            result = load(options, target, options.memory_streams, 500, options.seconds)
        print(f"{name:<14} {(result['memory'] - before) / options.memory_streams / 1024:>7.1f} KiB a stream, "
              f"{before / 2**20:.0f} MiB before, {result['failed']} failed", flush=True)


def main():
    options = parse_arguments()
    print(f"load of the machine before: {os.getloadavg()[0]:.2f}")
    for part, measure in (("latency", measure_latency), ("rate", measure_rate),
                          ("memory", measure_memory)):
        if part in options.parts:
            measure(options)


if __name__ == "__main__":
    main()
