"""JSON logs, the trace of a request through all roles, and the line of rates, of real processes."""
import argparse
import datetime
import json
import re
import sys
import time
import unittest
import urllib.request

from cluster import Cluster

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
FORGED = 'forged"\n{"ts":"x","msg":"forged"}\x1b[2J'
RATES = ("prompt_tokens_per_s", "generation_tokens_per_s", "running", "waiting", "kv_use_percent",
         "prefix_hit_percent", "handoff_mb_per_s")


def wait_for(condition, seconds=60.0):
    """The first true value of `condition`; polls other processes, so there is nothing to wait on."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come")
        time.sleep(0.1)


class LogsTest(unittest.TestCase):
    cluster = None

    def lines(self, role, message=None):
        """The log of a role, parsed; only whole lines, since it may be writing one."""
        text = role.read_log()
        parsed = [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]
        return [line for line in parsed if message in (None, line["msg"])]

    def complete(self, headers, tokens=8, field="x"):
        body = {"prompt": "Hello there", "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
                field: 1}
        request = urllib.request.Request(
            self.cluster.router.url + "/v1/completions", json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def test_every_line_is_an_object_with_the_four_keys(self):
        self.complete({}, field=FORGED)  # an unknown field's name is logged
        for role in self.cluster.roles:
            lines = self.lines(role)
            self.assertGreater(len(lines), 2)
            for line in lines:
                self.assertEqual(list(line)[:4], ["ts", "level", "role", "msg"])
                self.assertEqual(line["role"], role.role)
                self.assertIn(line["level"], ("trace", "debug", "info", "warning", "error"))
                self.assertRegex(line["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")
                datetime.datetime.strptime(line["ts"][:19], "%Y-%m-%dT%H:%M:%S")
                self.assertNotEqual(line["msg"], "forged")
                # A field that is called like one of the four would be one of these.
                self.assertEqual([key for key in line if key.endswith("_")], [])
            self.assertEqual(len(self.lines(role, "configuration")), 1)
            self.assertNotIn("\x1b", role.read_log())
        unknown = self.lines(self.cluster.router, "unknown_fields")
        self.assertEqual(unknown[-1]["first"], FORGED)

    def test_the_router_names_the_role_of_a_worker(self):
        up = self.lines(self.cluster.router, "worker_up")
        self.assertEqual({(line["worker_role"], line["address"]) for line in up},
                         {(worker.role, worker.rpc_address) for worker in self.cluster.workers})

    def test_one_trace_goes_through_all_roles(self):
        self.complete({"traceparent": f"00-{TRACE_ID}-{SPAN}-01", "x-request-id": "my-request"})
        for role in self.cluster.roles:
            wait_for(lambda role=role: [line for line in self.lines(role, "request_ended")
                                        if line["trace_id"] == TRACE_ID])
        submitted = [line for line in self.lines(self.cluster.router, "request_submitted")
                     if line["trace_id"] == TRACE_ID]
        self.assertEqual(submitted[0]["request_id"], "my-request")
        engine_id = submitted[0]["engine_request_id"]
        for worker in self.cluster.workers:
            ended = [line for line in self.lines(worker, "request_ended")
                     if line["trace_id"] == TRACE_ID]
            self.assertEqual([line["request_id"] for line in ended], [engine_id], worker.role)

    def test_requests_without_a_trace_get_one(self):
        for header in ({}, {"traceparent": "00-0-0-00"}, {"traceparent": f"00-{'0' * 32}-{SPAN}-01"}):
            before = len(self.lines(self.cluster.prefills[0], "request_ended"))
            self.complete(header)
            ended = wait_for(lambda: self.lines(self.cluster.prefills[0], "request_ended")[before:])
            self.assertRegex(ended[-1]["trace_id"], "^[0-9a-f]{32}$")
            self.assertNotEqual(ended[-1]["trace_id"], "0" * 32)

    def test_rates_are_logged_while_there_is_work_and_not_after(self):
        self.complete({}, tokens=64)
        for role in self.cluster.roles:
            line = wait_for(lambda role=role: self.lines(role, "stats"))[0]
            self.assertEqual(line["part"], role.role)
            for key in RATES:
                self.assertGreaterEqual(line[key], 0, key)
        sent = [line["handoff_mb_per_s"] for line in self.lines(self.cluster.prefills[0], "stats")]
        self.assertGreaterEqual(max(sent), 0)
        self.assertEqual(self.cluster.wait_for_rest(), {})
        counts = [len(self.lines(role, "stats")) for role in self.cluster.roles]
        time.sleep(4)  # four periods: what must not come cannot be waited for
        for role, count in zip(self.cluster.roles, counts):
            self.assertLessEqual(len(self.lines(role, "stats")), count + 2, role.role)


class TextLogsTest(unittest.TestCase):
    cluster = None

    def test_lines_are_for_people_unless_json_is_asked_for(self):
        log = self.cluster.router.read_log()
        self.assertRegex(log, re.compile(r"^\d{4}-\S+ info listening url=http", re.MULTILINE))
        self.assertIn("configuration:\n", log)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    arguments, rest = parser.parse_known_args()
    small = ["--num-blocks", "64", "--max-model-len", "1024"]
    common = ["--log-format", "json", "--log-level", "debug", "--log-stats-period", "1"]
    with Cluster(arguments.server, arguments.model, prefill=small, decode=small,
                 router=common, common=common) as cluster:
        LogsTest.cluster = cluster
        with Cluster(arguments.server, arguments.model, prefill=small, decode=small) as text:
            TextLogsTest.cluster = text
            done = unittest.main(argv=[sys.argv[0], *rest], verbosity=2, exit=False)
    sys.exit(0 if done.result.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
