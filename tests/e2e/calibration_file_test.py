"""Workers that are given `--tpla-calibration FILE`: one whose exact window is longer than what is asked
serves what one exact engine does, and one that is not for them is refused.

The file is the bundled model's calibration with a window written into its header.
"""
import argparse
import json
import random
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from cluster import Cluster, complete
from equality_test import compare, make_requests
from tessera_server import TesseraServer

OPTIONS = None
BLOCK_TOKENS = 64
FIRST, LAST = 2, 700  # tokens; all prompts and answers are shorter


def with_window(source, target):
    """Copies a calibration, naming a window in its metadata."""
    data = source.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header["__metadata__"]["window"] = f"{FIRST},{LAST}"
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])


class CalibrationFileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="tessera_calibration_")
        cls.path = Path(cls.folder.name) / "window.safetensors"
        with_window(Path(OPTIONS.model) / "tpla_calibration.safetensors", cls.path)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_a_window_longer_than_the_context_is_exact(self):
        requests = make_requests(random.Random(5), 11, 8192, 600)  # up to 512 tokens
        requests[-1]["prompt"] = requests[-2]["prompt"] + requests[-1]["prompt"][:40]  # held blocks
        with TesseraServer(OPTIONS.server, OPTIONS.model,
                           arguments=["--combined", "--dtype", "float32"]) as server:
            expected = [complete(server.url, request) for request in requests]
        worker = ["--dtype", "float32", "--tpla-calibration", str(self.path)]
        problems = []
        with Cluster(OPTIONS.server, OPTIONS.model, prefill=worker, decode=worker) as cluster:
            for request, answer in zip(requests, expected):
                compare(request, answer, cluster.complete(request), problems, "window")
            self.assertEqual(cluster.wait_for_rest(), {})
            decode = cluster.decodes[0]
            self.assertIn(f"exact window of the first {FIRST} and the last {LAST} tokens",
                          decode.read_log())
            lengths = [len(request["prompt"]) for request in requests]
            blocks = sum(-(-length // BLOCK_TOKENS) for length in lengths)
            held = lengths[-2] // BLOCK_TOKENS
            for rank in ("0", "1"):  # its own image but for held blocks, and the other slice's
                image = BLOCK_TOKENS * decode.metric("tessera_cache_bytes_per_token", rank=rank)
                self.assertEqual(decode.metric("tessera_handoff_landed_bytes_total", rank=rank),
                                 (2 * blocks - held) * image)
        self.assertEqual(problems, [])

    def test_a_file_for_other_slices_is_refused(self):
        done = subprocess.run([OPTIONS.server, "decode", OPTIONS.model, "--port", "0", "--tpla-slices",
                               "4", "--tensor-parallel-size", "4", "--tpla-calibration",
                               str(self.path)], capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("is a calibration for 2 slices, --tpla-slices is 4", done.stdout + done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
