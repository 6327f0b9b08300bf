"""Each decode rank receives and holds its share of the latent cache, and nothing more.

Counted by the transport itself, at both ends, for a prompt of whole blocks: with g slices a rank gets
(R / g + rope) of the R + rope numbers of every token; in dcp it gets every N-th block whole.
"""
import argparse
import json
import random
import time
import unittest
from pathlib import Path

from cluster import Cluster

OPTIONS = None
BLOCK_TOKENS = 64
NUM_BLOCKS = 13  # odd: the ranks of a dcp group get different numbers of them


class ShardedBytesTest(unittest.TestCase):
    def setUp(self):
        config = json.loads((Path(OPTIONS.model) / "config.json").read_text())
        self.latent = config["kv_lora_rank"]
        self.rope = config["qk_rope_head_dim"]
        self.layers = config["num_hidden_layers"]
        self.vocab_size = config["vocab_size"]

    def run_group(self, ranks, *layout):
        """Bytes that landed on each rank, and the gauges of what a token takes there."""
        rng = random.Random(7)
        prompt = [rng.randrange(3, self.vocab_size) for _ in range(NUM_BLOCKS * BLOCK_TOKENS)]
        worker = ["--dtype", "float32", *layout]
        with Cluster(OPTIONS.server, OPTIONS.model, prefill=worker,
                     decode=[*worker, "--tensor-parallel-size", str(ranks)]) as cluster:
            cluster.complete({"prompt": prompt, "max_tokens": 3, "temperature": 0})
            self.assertEqual(cluster.wait_for_rest(), {})
            decode = cluster.decodes[0]
            landed = [decode.metric("tessera_handoff_landed_bytes_total", rank=str(rank))
                      for rank in range(ranks)]
            held = [decode.metric("tessera_cache_bytes_per_token", rank=str(rank))
                    for rank in range(ranks)]
            sent = cluster.prefills[0].metric("tessera_handoff_sent_bytes_total")
            self.assertEqual(sum(landed), sent)
            self.assertEqual(decode.metric("tessera_cache_bytes_per_token_replicated"),
                             self.token_bytes(self.latent))
            return landed, held

    def token_bytes(self, columns):
        return self.layers * (columns + self.rope) * 4

    def check_tpla(self, ranks, slices):
        # Hadamard: a calibration in the model's folder might share columns.
        landed, held = self.run_group(ranks, "--attention-sharding", "tpla", "--tpla-slices",
                                      str(slices), "--tpla-basis", "hadamard")
        share = self.token_bytes(self.latent // slices)
        self.assertEqual(landed, [NUM_BLOCKS * BLOCK_TOKENS * share] * ranks)
        self.assertEqual(held, [share] * ranks)

    def test_two_slices_on_two_ranks(self):
        self.check_tpla(2, 2)

    def test_two_slices_on_four_ranks(self):
        self.check_tpla(4, 2)

    def test_four_slices_on_four_ranks(self):
        self.check_tpla(4, 4)

    def test_replicated_ranks_get_everything(self):
        landed, held = self.run_group(2, "--attention-sharding", "replicated")
        whole = self.token_bytes(self.latent)
        self.assertEqual(landed, [NUM_BLOCKS * BLOCK_TOKENS * whole] * 2)
        self.assertEqual(held, [whole] * 2)

    def test_float8_rows_of_two_slices(self):
        # Latents, 4 bytes of scale and zeros up to a multiple of 16, the rope part in bfloat16.
        layout = ["--attention-sharding", "tpla", "--tpla-basis", "hadamard", "--kv-cache-dtype",
                  "fp8_e4m3"]
        self.token_bytes = lambda columns: self.layers * (columns + 16 + 2 * self.rope)
        landed, held = self.run_group(2, *layout)
        share = self.token_bytes(self.latent // 2)
        self.assertEqual(landed, [NUM_BLOCKS * BLOCK_TOKENS * share] * 2)
        self.assertEqual(held, [share] * 2)

    def test_workers_of_different_cache_types_are_not_paired(self):
        worker = ["--dtype", "float32", "--attention-sharding", "replicated"]
        cluster = Cluster(OPTIONS.server, OPTIONS.model, decode=worker,
                          prefill=[*worker, "--kv-cache-dtype", "fp8_e4m3"])
        try:
            for role in cluster.roles:
                role.start()
            for role in cluster.workers:
                role.wait_until_ready()
            reason = self.logged(cluster.router, "layouts_differ")
            self.assertIn(f"prefill worker {cluster.prefills[0].rpc_address} keeps "
                          "full1-float32-kv-float8_e4m3-none-", reason)
            self.assertIn(f"decode group {cluster.decodes[0].rpc_address} keeps "
                          "full1-float32-none-", reason)
            self.assertFalse(cluster.router.is_ready())
        finally:
            for role in cluster.roles:
                role.kill()

    def logged(self, role, event):
        """The first line of the role's log that has `event`."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for line in role.read_log().splitlines():
                if event in line:
                    return line
            time.sleep(0.1)  # polls another process: there is nothing to wait on
        self.fail(f"{role.role} never logged {event}")

    def test_dcp_ranks_get_every_second_block(self):
        landed, held = self.run_group(2, "--attention-sharding", "dcp")
        whole = self.token_bytes(self.latent)
        self.assertEqual(landed, [count * BLOCK_TOKENS * whole for count in (7, 6)])
        self.assertEqual(held, [whole / 2] * 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
