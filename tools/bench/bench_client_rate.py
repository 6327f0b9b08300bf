#!/usr/bin/env python3
"""How many events a second one core of `tessera bench` takes: a fake server pinned to one processor,
the client to another, more streams step by step. Prints a row a step: events a second, the client's
processor time, its lag, and whether it calls the run valid; then what a whole core would take.

    tools/bench/bench_client_rate.py --build build/cpu-release
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="build folder with bin/")
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 250, 500, 1000, 1500])
    parser.add_argument("--gap-ms", type=float, default=25.0, help="between a stream's events")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer")
    parser.add_argument("--seconds", type=int, default=8, help="of a step")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--client-cpu", type=int, default=1)
    return parser.parse_args()


def pinned(cpu, *command):
    return ["taskset", "-c", str(cpu), *map(str, command)]


def measure(options, port, streams):
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            pinned(options.client_cpu, options.build / "bin" / "tessera", "bench",
                   f"http://127.0.0.1:{port}", "--api", "chat", "--concurrency", streams,
                   "--duration", options.seconds, "--input-tokens", 16, "--output-tokens",
                   options.tokens, "--warmup", streams, "--grace", 30, "--json", report),
            check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=options.seconds + 120)
        return json.loads(report.read_text())


def events_per_second(report):
    """Of the slices in the middle, when all streams run."""
    slices = report["slices"]
    middle = slices[len(slices) // 4: max(len(slices) * 3 // 4, 1)]
    return sum(one["tokens_per_s"] for one in middle) / max(len(middle), 1)


def main():
    options = parse_arguments()
    server = subprocess.Popen(
        pinned(options.server_cpu, options.build / "bin" / "fake_sse_server", 20, options.gap_ms),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        print(f"{'streams':>8} {'events/s':>9} {'client cpu':>10} {'loop p99 ms':>11} "
              f"{'ITL p50':>8} {'ITL p99':>8} {'failed':>6} valid")
        for streams in options.streams:
            report = measure(options, port, streams)
            rate = events_per_second(report)
            print(f"{streams:>8} {rate:>9.0f} {report['client_cpus']:>10.2f} "
                  f"{report['p99_loop_lag_ms']:>11.3f} {report['median_itl_ms']:>8.2f} "
                  f"{report['p99_itl_ms']:>8.2f} {report['failed']:>6} {report['is_valid']}",
                  flush=True)
    finally:
        server.stdin.close()
        server.wait(timeout=20)


if __name__ == "__main__":
    main()
