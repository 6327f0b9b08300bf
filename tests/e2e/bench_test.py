"""`tessera bench` against router, prefill worker and decode group on the mock engine, whose speed is
known: counts, lengths, latencies, the files it writes, cancelled requests, a trace, and what it says
when it is held up itself.

A busy machine may make the client call a run invalid: that is checked to be said, and no fault.
"""
import argparse
import html.parser
import json
import re
import statistics
import tempfile
import unittest

from bench_client import BenchClient
from cluster import Cluster

OPTIONS = None
STEP_MS = 20
PREFILL_TOKENS_PER_S = 2000
WORKER = ["--engine", "mock", "--mock-prefill-tokens-per-s", str(PREFILL_TOKENS_PER_S),
          "--mock-decode-step-ms", str(STEP_MS), "--max-num-seqs", "64"]
# Of a result of `vllm bench serve --save-detailed`; generated_texts alone is not kept here.
VLLM_KEYS = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed",
    "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput",
    "output_throughput", "total_token_throughput", "input_lens", "output_lens", "ttfts", "itls",
    "start_times", "errors", "max_output_tokens_per_s", "max_concurrent_requests",
    *(f"{kind}_{figure}_ms" for kind in ("mean", "median", "std", "p99")
      for figure in ("ttft", "tpot", "itl", "e2el"))}


class References(html.parser.HTMLParser):
    """What a page would load from elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.found = re.findall(r"@import[^;]*|url\([^)]*\)", page)
        self.num_charts = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.num_charts += tag == "svg"
        if tag in ("script", "link", "iframe", "img", "object"):
            self.found.append(tag)
        self.found += [value for name, value in attrs
                       if name in ("src", "href", "xlink:href", "srcset", "action", "data")]


class BenchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(OPTIONS.server, OPTIONS.model, prefill=WORKER, decode=WORKER)
        cls.enterClassContext(cls.cluster)
        cls.http = cls.cluster.router.url
        cls.grpc = "grpc://" + cls.cluster.router.rpc_address

    def bench(self, url, *arguments):
        """A finished client; its exit code and its words are those of its report."""
        client = self.enterContext(BenchClient(OPTIONS.server, url, "--seed", 7, *arguments))
        code = client.wait()
        report = client.report()
        self.assertEqual(code, 0 if report["is_valid"] else 1, client.output())
        self.assertEqual("INVALID RUN" in client.output(), not report["is_valid"], client.output())
        self.assertEqual(report["failed"], 0, report["error_counts"])
        self.assertEqual((report["unsent"], report["resent"]), (0, 0))
        # Over gRPC another thread receives than the one that sends: both have to be on time.
        self.assertGreater(report["num_loop_lag"], 0)
        self.assertEqual(report["num_receive_lag"] > 0, url.startswith("grpc:"))
        for name in ("ttft", "itl"):
            self.assertEqual(f"p99_{name}_ms" in report["unsound"], report[f"num_{name}"] < 1000)
        self.assertEqual(report["error_counts"], {})
        self.assertFalse(report["is_stopped_early"])
        return client, report

    def check_speeds(self, report, input_tokens, output_tokens):
        """Nothing is faster than the mock engine, and the figures fit each other."""
        decode_ms = STEP_MS * (output_tokens - 1)
        self.assertGreaterEqual(min(report["ttfts"]), input_tokens / PREFILL_TOKENS_PER_S)
        self.assertGreaterEqual(report["mean_tpot_ms"], STEP_MS * 0.95)
        self.assertGreaterEqual(report["median_itl_ms"], STEP_MS * 0.8)
        self.assertLess(report["median_itl_ms"], STEP_MS * 3)
        self.assertGreaterEqual(report["mean_e2el_ms"],
                                report["mean_ttft_ms"] + decode_ms * 0.95)
        self.assertLessEqual(report["median_e2el_ms"], report["p99_e2el_ms"])
        self.assertAlmostEqual(report["median_ttft_ms"] / 1e3, statistics.median(report["ttfts"]))
        gaps = [gap for gaps in report["itls"] for gap in gaps]
        self.assertAlmostEqual(report["mean_itl_ms"] / 1e3, statistics.fmean(gaps), places=6)
        for key, amount in (("request_throughput", report["completed"]),
                            ("output_throughput", report["total_output_tokens"]),
                            ("total_token_throughput", report["total_input_tokens"]
                             + report["total_output_tokens"])):
            self.assertAlmostEqual(report[key], amount / report["duration"], places=6)

    def check_counts(self, report, requests, output_tokens):
        self.assertEqual(report["completed"], requests)
        self.assertEqual(report["output_lens"], [output_tokens] * requests)
        self.assertEqual(report["total_output_tokens"], output_tokens * requests)
        self.assertEqual(report["errors"], [""] * requests)
        for key in ("input_lens", "ttfts", "itls", "start_times"):
            self.assertEqual(len(report[key]), requests)

    def router_means(self):
        """Sums and counts of the router's own times."""
        return {name: [self.cluster.router.metric(f"tessera_router_{name}_seconds_{part}")
                       for part in ("sum", "count")]
                for name in ("time_to_first_token", "inter_token")}

    def test_completions_at_a_rate_are_what_router_and_mock_say(self):
        before = self.router_means()
        client, report = self.bench(
            self.http, "--rate", 20, "--requests", 40, "--input-tokens", 64, "--output-tokens", 12)
        self.check_counts(report, 40, 12)
        self.check_speeds(report, 64, 12)
        self.assertEqual(report["input_lens"], [64] * 40)
        self.assertEqual((report["backend"], report["request_rate"]), ("openai", 20))
        self.assertEqual(VLLM_KEYS - report.keys(), set())
        means = {name: (total - before[name][0]) / (count - before[name][1]) * 1e3
                 for name, (total, count) in self.router_means().items()}
        self.assertGreaterEqual(report["mean_ttft_ms"], means["time_to_first_token"])
        self.assertLess(report["mean_ttft_ms"], means["time_to_first_token"] + STEP_MS)
        self.assertAlmostEqual(report["mean_itl_ms"], means["inter_token"], delta=0.05 * STEP_MS)

    def test_files_are_whole(self):
        client, report = self.bench(
            self.http, "--rate", 50, "--arrivals", "constant", "--requests", 30, "--warmup", 5,
            "--input-tokens", 16, "--output-tokens", 6)
        self.assertEqual((report["completed"], report["warmup"]), (25, 5))
        records = client.records()
        self.assertEqual([record["index"] for record in records], list(range(30)))
        self.assertEqual([record["warmup"] for record in records], [True] * 5 + [False] * 25)
        for number, record in enumerate(records):
            self.assertEqual(record["outcome"], "completed")
            self.assertAlmostEqual(record["scheduled_s"], number / 50, places=6)
            times = [record[key] for key in
                     ("scheduled_s", "sent_s", "first_byte_s", "first_text_s", "last_text_s", "done_s")]
            self.assertEqual(times, sorted(times))
            self.assertEqual(len(record["gaps_ms"]), 5)
        references = References(client.page())
        self.assertEqual(references.found, [])
        self.assertGreaterEqual(references.num_charts, 3)

    def test_chat_in_a_closed_loop_with_goodput(self):
        _, report = self.bench(
            self.http, "--api", "chat", "--concurrency", 4, "--requests", 20, "--input-tokens", 24,
            "--output-tokens", 8, "--goodput", "ttft:60000", "--goodput", f"tpot:{STEP_MS / 2}")
        self.check_counts(report, 20, 8)
        self.check_speeds(report, 24, 8)
        self.assertEqual((report["backend"], report["request_rate"]), ("openai-chat", "inf"))
        self.assertEqual((report["max_concurrency"], report["max_concurrent_requests"]), (4, 4))
        self.assertEqual((report["num_good"], report["request_goodput"]), (0, 0))

    def test_grpc(self):
        _, report = self.bench(
            self.grpc, "--rate", 20, "--requests", 20, "--input-tokens", 64, "--output-tokens", 12,
            "--goodput", "e2el:60000")
        self.check_counts(report, 20, 12)
        self.check_speeds(report, 64, 12)
        self.assertEqual(report["input_lens"], [64] * 20)
        self.assertEqual(report["backend"], "tessera-grpc")
        self.assertEqual(report["num_good"], 20)
        self.assertAlmostEqual(report["request_goodput"], report["request_throughput"])

    def test_cancelled_requests_leave_nothing_behind(self):
        for url in (self.http, self.grpc):
            with self.subTest(url=url):
                _, report = self.bench(
                    url, "--concurrency", 8, "--requests", 32, "--input-tokens", 32,
                    "--output-tokens", 20, "--cancel-share", 0.5)
                self.assertEqual(report["completed"] + report["cancelled"], 32)
                self.assertGreater(report["cancelled"], 4)
                self.assertGreater(report["completed"], 4)
        self.assertEqual(self.cluster.wait_for_rest(), {})

    def test_trace_is_replayed_at_its_times_with_its_prefixes(self):
        lines = [{"timestamp": 100 * number, "input_length": 600 + number, "output_length": 3 + number % 4,
                  "hash_ids": [number % 2, 100 + number]} for number in range(12)]
        cached = self.cached_tokens()
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            client, report = self.bench(self.http, "--arrivals", "trace", "--trace-speed", 2,
                                        "--data", "mooncake", "--data-file", file.name)
        self.assertEqual(report["input_lens"], [line["input_length"] for line in lines])
        self.assertEqual(report["output_lens"], [line["output_length"] for line in lines])
        for line, record in zip(lines, client.records(), strict=True):
            self.assertAlmostEqual(record["scheduled_s"], line["timestamp"] / 2000, places=6)
            self.assertGreaterEqual(record["sent_s"], record["scheduled_s"])
        # Two prefixes of 512 tokens; requests may overlap the one that computes theirs.
        self.assertGreaterEqual(self.cached_tokens() - cached, 512)

    def cached_tokens(self):
        return self.cluster.prefills[0].metric("tessera_prompt_tokens_cached_total")

    def test_client_that_is_held_up_calls_its_run_invalid(self):
        with BenchClient(OPTIONS.server, self.http, "--rate", 40, "--requests", 40,
                         "--input-tokens", 16, "--output-tokens", 10) as client:
            self.assertEqual(client.hold_up(), 1)
            report = client.report()
            self.assertFalse(report["is_valid"])
            self.assertGreater(report["p99_loop_lag_ms"], 10)
            self.assertIn("client saturated", client.output())
            self.assertIn("Invalid run", client.page())
            self.assertEqual((report["completed"], report["failed"]), (40, 0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
