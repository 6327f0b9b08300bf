"""What Prometheus' own promtool says about the rules and panels of deploy/monitoring.

Without promtool (Debian: prometheus) it says NOT RUN and exits with 77, which ctest shows as skipped.
"""
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

from monitoring_files import BOARDS, RULE_TESTS, RULES, board_expressions, board_of

SKIPPED = 77


def run_promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def check_expressions(expressions):
    """Panels are no rules, but promtool parses nothing else."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "panels", "rules": [
            {"record": f"panel_{i}", "expr": expression}
            for i, expression in enumerate(expressions)]}]}, file)
        file.flush()
        return run_promtool("check", "rules", file.name)


class PromtoolTest(unittest.TestCase):
    def test_rules_are_valid(self):
        code, output = run_promtool("check", "rules", str(RULES))
        self.assertEqual(code, 0, output)

    def test_rules_pass_their_tests(self):
        code, output = run_promtool("test", "rules", str(RULE_TESTS))
        self.assertEqual(code, 0, output)

    def test_panels_are_valid_promql(self):
        code, output = check_expressions([
            expression for name in BOARDS for _, expression in board_expressions(board_of(name))])
        self.assertEqual(code, 0, output)

    def test_bad_promql_is_told(self):
        code, _ = check_expressions(["sum by (le (a)"])
        self.assertNotEqual(code, 0)


if __name__ == "__main__":
    if shutil.which("promtool") is None:
        print("NOT RUN: promtool (Debian: prometheus) is not installed")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
