#!/usr/bin/env python3
"""What the handoff costs on loopback, with router, prefill worker and decode group as processes.

Prints, for prompts of one length sent one after another: the time from the end of prefill to the end
of the first decode step with its parts (median and p99), the bytes that each rank received against a
replicated cache, and the share of parcels that had landed before prefill ended. Then the prefix hit
rate of prefix affinity against round-robin on a load of shared prefixes.

  tools/bench/handoff_bench.py --server build/cpu-release/bin/tessera --model configs/demo_model

With --device cuda: from a prefill worker on the first GPU to a decode group on GPU --target, over a
cache of DeepSeek-V3's shape (61 layers of 512 + 64 bfloat16) whose bytes are real; the rest of the
model is small and its weights are random. For each of --lengths, one request at a time, no others
running. How fast the lane itself is, kv_transfer_bench says.
"""
import argparse
import concurrent.futures
import json
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "e2e"))
from cluster import Cluster  # noqa: E402

LINE = re.compile(r" (handoff_\w+) .*\bkey=(\S+).*\bat_us=(\d+)")
TPLA = ["--attention-sharding", "tpla", "--tpla-slices", "2"]


def events_of(role):
    """Microseconds on the machine's steady clock, by (key, event)."""
    return {(found.group(2), found.group(1)): int(found.group(3))
            for found in map(LINE.search, role.read_log().splitlines()) if found}


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def prompt(rng, length, vocab_size):
    return [rng.randrange(3, vocab_size) for _ in range(length)]


def times_of_requests(options, cluster, length, num_warm=3):
    """By part of the way: milliseconds after the end of prefill, one a request."""
    rng = random.Random(options.seed + length)
    prefill, decode = cluster.prefills[0], cluster.decodes[0]
    known = {key for key, event in events_of(prefill) if event == "handoff_sealed"}
    for _ in range(options.requests + num_warm):
        cluster.complete({"prompt": prompt(rng, length, options.vocab_size), "max_tokens": 4,
                          "temperature": 0, "ignore_eos": True})
    left = events_of(prefill)
    right = events_of(decode)
    keys = [key for key, event in left if event == "handoff_sealed" and key not in known]
    parts = {"last parcel acknowledged": [], "committed on decode": [],
             "first decode step ended": []}
    for key in keys[num_warm:]:
        sealed = left[key, "handoff_sealed"]
        parts["last parcel acknowledged"].append(left[key, "handoff_transferred"] - sealed)
        parts["committed on decode"].append(right[key, "handoff_committed"] - sealed)
        parts["first decode step ended"].append(right[key, "handoff_first_step"] - sealed)
    return parts


def print_times(parts):
    for name, values in parts.items():
        print(f"  {name:26} median {percentile(values, 0.5) / 1e3:7.2f}   "
              f"p99 {percentile(values, 0.99) / 1e3:7.2f}")


def measure_times(options, length, chunk):
    worker = ["--log-level", "debug"]
    with Cluster(options.server, options.model, common=[],
                 prefill=[*TPLA, *worker, "--max-num-batched-tokens", str(chunk)],
                 decode=[*TPLA, *worker, "--tensor-parallel-size", "2"]) as cluster:
        parts = times_of_requests(options, cluster, length)
        prefill, decode = cluster.prefills[0], cluster.decodes[0]
        print(f"prompts of {length} tokens, chunks of {chunk}, {options.requests} requests; "
              "milliseconds after the end of prefill:")
        print_times(parts)
        early = prefill.metric("tessera_handoff_acked_parcels_before_end_total")
        parcels = prefill.metric("tessera_handoff_acked_parcels_total")
        print(f"  parcels acknowledged before prefill ended: {100 * early / parcels:.0f} %")
        whole = decode.metric("tessera_cache_bytes_per_token_replicated")
        blocks = -(-length // 64) * (options.requests + 3)
        for rank in ("0", "1"):
            landed = decode.metric("tessera_handoff_landed_bytes_total", rank=rank)
            print(f"  rank {rank} received {landed / blocks / 64:.0f} bytes a token, "
                  f"{100 * landed / blocks / 64 / whole:.0f} % of a replicated cache")


def make_wide_cache_model(options, folder):
    """A model whose cache is DeepSeek-V3's and whose products are small."""
    source = Path(options.model)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, folder)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.update(num_hidden_layers=61, first_k_dense_replace=61, kv_lora_rank=512,
                  qk_rope_head_dim=64, qk_nope_head_dim=128, v_head_dim=128,
                  max_position_embeddings=max(options.lengths) + 64)
    Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
    return 61 * (512 + 64) * 2 * 64


def measure_on_gpus(options):
    with tempfile.TemporaryDirectory() as folder:
        block_bytes = make_wide_cache_model(options, folder)
        tokens = max(options.lengths)
        common = ["--device", "cuda", "--load-format", "dummy", "--dtype", "bfloat16",
                  "--attention-sharding", options.sharding, "--log-level", "debug",
                  "--max-model-len", str(tokens + 64), "--num-blocks", str(tokens // 64 * 3)]
        others = [str(gpu) for gpu in range(8) if gpu != options.target]
        with Cluster(options.server, folder, common=common,
                     prefill=["--max-num-batched-tokens", str(options.chunk)],
                     decode=["--tensor-parallel-size", str(options.ranks)],
                     decode_environment={"CUDA_VISIBLE_DEVICES":
                                         ",".join([str(options.target), *others[:options.gpus - 1]])}
                     ) as cluster:
            for length in options.lengths:
                parts = times_of_requests(options, cluster, length)
                chunk_blocks = -(-((length - 1) % options.chunk + 1) // 64)
                print(f"GPU 0 to {options.target}, {options.sharding} on {options.ranks} ranks, "
                      f"{length} tokens, chunks of {options.chunk}, {options.requests} requests: "
                      f"{-(-length // 64) * block_bytes / 1e6:.0f} MB, of them "
                      f"{chunk_blocks * block_bytes / 1e6:.0f} MB in the last chunk; milliseconds "
                      "after the end of prefill:")
                print_times(parts)
            for line in cluster.prefills[0].read_log().splitlines():
                if "transport_connected" in line:
                    print(" ", line)


def hit_rate(options, policy):
    """Share of prompt tokens that the prefill workers found in their prefix caches."""
    rng = random.Random(options.seed)
    prefixes = [prompt(rng, 512, options.vocab_size) for _ in range(16)]
    requests = [{"prompt": rng.choice(prefixes) + prompt(rng, 32, options.vocab_size),
                 "max_tokens": 2, "temperature": 0} for _ in range(options.shared_requests)]
    # Room for a part of the prefixes only, so that it matters where a request goes.
    with Cluster(options.server, options.model, num_prefill=2,
                 prefill=[*TPLA, "--num-blocks", "80", "--max-num-seqs", "4"],
                 decode=[*TPLA, "--tensor-parallel-size", "2"],
                 router=["--routing-policy", policy]) as cluster:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(cluster.complete, requests))
        cached = sum(w.metric("tessera_prompt_tokens_cached_total") for w in cluster.prefills)
        tokens = sum(w.metric("tessera_prompt_tokens_total") for w in cluster.prefills)
        return cached / tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--shared-requests", type=int, default=200)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--target", type=int, default=1, help="GPU of the decode group's rank 0")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs of this host")
    parser.add_argument("--ranks", type=int, default=1, help="of the decode group")
    parser.add_argument("--sharding", default="replicated")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 8192, 32768])
    parser.add_argument("--chunk", type=int, default=8192)
    options = parser.parse_args()
    if options.device == "cuda":
        measure_on_gpus(options)
        return
    measure_times(options, 2000, 1024)
    measure_times(options, 3000, 512)
    rates = {policy: hit_rate(options, policy) for policy in ("round_robin", "prefix_affinity")}
    print("prompt tokens found in prefix caches, 16 shared prefixes of 512 tokens over 2 workers: " +
          ", ".join(f"{policy} {100 * rate:.0f} %" for policy, rate in rates.items()))


if __name__ == "__main__":
    main()
