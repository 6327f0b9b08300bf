"""`tessera eval` on the bundled model: exact modes are exact, sliced ones are not, and what is written
can be read."""
import argparse
import json
import subprocess
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

OPTIONS = None
TEXT = Path(__file__).resolve().parent.parent / "data" / "quality" / "harbour.txt"
# The last one takes the calibration in the model's folder.
MODES = ["replicated:2", "dcp:2", "tpla:2:hadamard", "tpla:4:hadamard", "tpla:2:none", "tpla:2"]
CALIBRATION = "tpla_calibration.safetensors"
WINDOWS, PROMPT, DECODED = 3, 80, 120


class Page(HTMLParser):
    """Counts elements, and keeps the attributes that could fetch something."""

    def __init__(self, text):
        super().__init__()
        self.counts = {}
        self.references = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def run_eval(*arguments):
    return subprocess.run([OPTIONS.server, "eval", OPTIONS.model, *arguments],
                          capture_output=True, text=True, timeout=240, check=False)


class EvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="tessera_eval_")
        cls.json_path = Path(cls.folder.name) / "quality.json"
        cls.html_path = Path(cls.folder.name) / "quality.html"
        cls.done = run_eval("--text", str(TEXT), "--modes", ",".join(MODES),
                            "--lengths", f"{PROMPT}:{DECODED},40:20", "--windows", str(WINDOWS),
                            "--threads", "2", "--json", str(cls.json_path),
                            "--html", str(cls.html_path))
        if cls.done.returncode != 0:
            raise AssertionError(cls.done.stderr)
        cls.cells = json.loads(cls.json_path.read_text(encoding="utf-8"))["cells"]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def cell(self, mode):
        return self.cells[MODES.index(mode)]

    def test_cells_are_by_lengths_then_by_mode(self):
        found = [(cell["prefill_tokens"], cell["decode_tokens"], cell["mode"]) for cell in self.cells]
        settled = MODES[:-1] + [f"tpla:2:{Path(OPTIONS.model) / CALIBRATION}"]
        self.assertEqual(found, [(PROMPT, DECODED, mode) for mode in settled] +
                         [(40, 20, mode) for mode in settled])

    def test_calibration_of_the_models_folder_is_far_better_than_none(self):
        calibrated = self.cell("tpla:2")
        self.assertLess(calibrated["kl"], self.cell("tpla:2:hadamard")["kl"] / 100)
        self.assertGreater(calibrated["bytes_ratio"], self.cell("tpla:2:none")["bytes_ratio"])

    def test_exact_modes_differ_by_rounding_only(self):
        for mode in ("replicated:2", "dcp:2"):
            cell = self.cell(mode)
            self.assertLess(cell["kl"], 1e-9)
            self.assertAlmostEqual(cell["perplexity_ratio"], 1.0, places=5)
            self.assertEqual(cell["top1_agreement"], 1.0)
            self.assertEqual(cell["agreement_length"], DECODED)
            self.assertEqual(cell["fully_agreeing_windows"], WINDOWS)

    def test_sliced_modes_diverge_and_more_so_with_more_slices(self):
        two, four = self.cell("tpla:2:hadamard"), self.cell("tpla:4:hadamard")
        self.assertGreater(two["kl"], 1e-3)
        self.assertGreater(four["kl"], two["kl"])
        self.assertLess(two["top1_agreement"], 1.0)
        self.assertLess(four["agreement_length"], DECODED)

    def test_bytes_are_what_a_rank_keeps(self):
        config = json.loads((Path(OPTIONS.model) / "config.json").read_text(encoding="utf-8"))
        rope, latent = config["qk_rope_head_dim"], config["kv_lora_rank"]
        self.assertAlmostEqual(self.cell("tpla:2:hadamard")["bytes_ratio"],
                               (latent / 2 + rope) / (latent + rope))
        self.assertEqual(self.cell("dcp:2")["bytes_ratio"], 0.5)
        self.assertEqual(self.cell("replicated:2")["bytes_per_token"],
                         config["num_hidden_layers"] * (latent + rope) * 4)

    def test_figures_agree_with_windows_and_curve(self):
        for cell in self.cells:
            windows = cell["windows"]
            self.assertEqual(len(windows["kl"]), WINDOWS)
            self.assertAlmostEqual(sum(windows["kl"]) / WINDOWS, cell["kl"], places=9)
            curve = cell["curve"]
            self.assertLessEqual(len(curve["kl"]), 64)
            self.assertEqual(curve["begin"][0], 0)
            self.assertEqual(curve["end"][-1], cell["decode_tokens"])
            weights = [end - begin for begin, end in zip(curve["begin"], curve["end"])]
            mean = sum(w * kl for w, kl in zip(weights, curve["kl"])) / cell["decode_tokens"]
            self.assertAlmostEqual(mean, cell["kl"], places=9)

    def test_table_names_every_mode(self):
        lines = self.done.stdout.splitlines()
        for mode in MODES[:-1] + [f"tpla:2:{CALIBRATION}"]:
            self.assertEqual(sum(line.split()[0] == mode for line in lines), 2)

    def test_page_needs_nothing_from_elsewhere(self):
        text = self.html_path.read_text(encoding="utf-8")
        self.assertNotIn("http", text)
        page = Page(text)
        self.assertEqual(page.references, [])
        self.assertNotIn("script", page.counts)
        self.assertNotIn("link", page.counts)
        charts = 3 * 2
        self.assertEqual(page.counts["polyline"], charts * len(MODES))
        self.assertEqual(page.counts["tr"], 1 + len(self.cells))

    def test_what_cannot_be_measured_is_refused_before_loading(self):
        for arguments, words in ((("--windows", "99"), "room for 99 windows"),
                                 (("--modes", "tpla:3"), "tpla:3"),
                                 (("--modes", "tpla:2:/nonexistent"), "/nonexistent"),
                                 (("--lengths", "4000:500", "--windows", "1"), "4500")):
            done = run_eval("--text", str(TEXT), *arguments)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[__file__, *rest], verbosity=2)
