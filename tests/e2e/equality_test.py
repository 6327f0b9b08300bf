"""Disaggregated answers equal those of one combined engine, token for token, in float32.

For the exact attention modes, each at several rank counts, with router, prefill worker and decode
group as separate processes. With --device cuda the answers expected are those of the same processes
on the CPU, so that TPLA with several slices can be compared too. A token may differ only where the
two best ones are closer than 1e-4 (sums in another order); the comparison of that prompt ends there.
Log-probabilities agree to 2e-3.
"""
import argparse
import random
import sys
import time

from cluster import Cluster, complete
from completions import first_difference
from tessera_server import TesseraServer

MODES = [("replicated", 1), ("replicated", 2), ("replicated", 4), ("dcp", 2), ("dcp", 4),
         ("tpla-1-slice", 2)]
GPU_MODES = [("replicated", 2), ("dcp", 2), ("tpla", 2)]
FIXED_LENGTHS = [1, 2, 63, 64, 65, 127, 128, 129, 500, 511, 512, 513, 1000, 2047, 3000]
COMBINED = ["--combined", "--dtype", "float32", "--device", "cpu"]
LIKE_MAX_GAP = 1e-4
MAX_LOGPROB_ERROR = 2e-3


def make_requests(rng, count, vocab_size, max_length, tokens=16):
    lengths = [length for length in FIXED_LENGTHS if length <= max_length][:count]
    while len(lengths) < count:
        lengths.append(rng.randint(1, max_length))
    return [{"prompt": [rng.randrange(3, vocab_size) for _ in range(length)], "max_tokens": tokens,
             "temperature": 0, "ignore_eos": True, "logprobs": 2} for length in lengths]


def mode_arguments(mode, ranks):
    if mode == "tpla-1-slice":  # one slice is all columns: exact, unlike tpla in general
        return ["--attention-sharding", "tpla", "--tpla-slices", "1"], ranks
    return ["--attention-sharding", mode], ranks


def compare(request, expected, actual, problems, label):
    """Adds what differs to `problems`; returns the largest error of a log-probability."""
    expected, actual = expected["choices"][0]["logprobs"], actual["choices"][0]["logprobs"]
    length = len(request["prompt"])
    difference = first_difference(expected, actual)
    count = len(expected["tokens"])
    if difference is not None:
        position, gap = difference
        count = position
        if gap >= LIKE_MAX_GAP:
            problems.append(f"{label}, prompt of {length}: token {position} differs, the two best "
                            f"are {gap:.2e} apart")
    errors = [abs(a - b) for a, b in
              zip(expected["token_logprobs"][:count], actual["token_logprobs"][:count])]
    worst = max(errors, default=0.0)
    if worst > MAX_LOGPROB_ERROR:
        problems.append(f"{label}, prompt of {length}: log-probability off by {worst:.2e}")
    return worst


def start_cluster(options, device, mode, ranks):
    layout, ranks = mode_arguments(mode, ranks)
    common = ["--dtype", "float32", "--device", device, "--kv-cache-dtype", options.kv_cache_dtype,
              *layout]
    if device == "cuda":  # two workers share a GPU: neither may take all of it
        common += ["--num-blocks", "1024"]
    is_on_gpus = device == "cuda" and options.decode_gpus
    return Cluster(options.server, options.model,
                   prefill=[*common, "--max-num-batched-tokens", "512"],
                   decode=[*common, "--tensor-parallel-size", str(ranks)],
                   decode_environment={"CUDA_VISIBLE_DEVICES": options.decode_gpus}
                   if is_on_gpus else None)


def run_mode(options, mode, ranks, requests, expected, problems):
    label = f"{mode} x {ranks}"
    with start_cluster(options, options.device, mode, ranks) as cluster:
        worst = 0.0
        for request, answer in zip(requests, expected):
            worst = max(worst, compare(request, answer, cluster.complete(request), problems, label))
        left = cluster.wait_for_rest()
        if left:
            problems.append(f"{label}: not given back: {left}")
        handoffs = sum(worker.metric("tessera_handoffs_total", result="committed")
                       for worker in cluster.decodes)
        if handoffs < len(requests):
            problems.append(f"{label}: {handoffs:.0f} handoffs for {len(requests)} requests")
        print(f"{label}: {len(requests)} prompts, largest error of a log-probability {worst:.1e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--max-length", type=int, default=3000)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--mode", action="append", help="as in 'dcp:2'; default: all")
    parser.add_argument("--device", default="cpu", help="of prefill and decode")
    parser.add_argument("--kv-cache-dtype", default="auto", help="of the combined engine, too")
    parser.add_argument("--decode-gpus", help="CUDA_VISIBLE_DEVICES of the decode group")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    requests = make_requests(random.Random(options.seed), options.prompts, options.vocab_size,
                             options.max_length, options.tokens)
    modes = MODES if options.device == "cpu" else GPU_MODES
    if options.mode:
        modes = [(text.split(":")[0], int(text.split(":")[1])) for text in options.mode]
    problems = []
    if options.device == "cpu":
        combined = [*COMBINED, "--kv-cache-dtype", options.kv_cache_dtype]
        with TesseraServer(options.server, options.model, arguments=combined) as server:
            expected = [complete(server.url, request) for request in requests]
    for mode, ranks in modes:
        if options.device != "cpu":
            with start_cluster(options, "cpu", mode, ranks) as cluster:
                expected = [cluster.complete(request) for request in requests]
        run_mode(options, mode, ranks, requests, expected, problems)
    if problems:
        sys.exit("\n".join(problems[:20]))


if __name__ == "__main__":
    main()
