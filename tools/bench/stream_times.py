"""Of streams over the mock engine: when its steps ended, when their tokens came, what processes cost."""
import bisect
import json
import os
import re
from pathlib import Path

STEP = re.compile(r" mock_step .*\brows=(\d+) at_us=(\d+)")
TICKS = os.sysconf("SC_CLK_TCK")


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def step_ends(log):
    """Seconds on the steady clock, of an engine with --log-level trace."""
    return [int(found.group(2)) / 1e6 for found in map(STEP.search, log.splitlines()) if found]


def token_times(report, records):
    """For each stream of a `tessera bench` (files of --json and --records) the times of its tokens."""
    start = json.loads(Path(report).read_text(encoding="utf-8"))["steady_start_s"]
    streams = []
    with open(records, encoding="utf-8") as file:
        for record in map(json.loads, file):
            if record["first_text_s"] is None:
                continue
            times = [start + record["first_text_s"]]
            for gap in record["gaps_ms"]:
                times.append(times[-1] + gap / 1e3)
            streams.append(times)
    return streams


def tokens_per_second(streams, begin, end):
    """At the client, between `begin` and `end`: each stream from its first token there to its last, since
    tokens come by whole steps and a few steps more or less would be some percent."""
    rate = 0.0
    for times in streams:
        inside = [at for at in times if begin <= at <= end]
        if len(inside) > 1:
            rate += (len(inside) - 1) / (inside[-1] - inside[0])
    return rate


def late_ms(streams, steps, begin, end):
    """How long after the end of its step each token came that came between `begin` and `end`. A running
    stream has a token of every step, so its tokens belong to steps in a row, the latest ones that let
    none come before its step: a stream that falls behind is late by as many steps as it does. The
    first token is left out, since prefill makes it."""
    late = []
    for times in streams:
        times = times[1:]
        first = min((bisect.bisect_right(steps, at) - 1 - i for i, at in enumerate(times)), default=-1)
        if first >= 0:
            late += [(at - steps[first + i]) * 1e3 for i, at in enumerate(times) if begin <= at <= end]
    return late
