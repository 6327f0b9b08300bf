"""Dashboards and rules of deploy/monitoring against what running roles say on /metrics.

Every metric that a panel, a variable or a rule names must be there from the start, on roles that
have not served anything yet; so must every label that a selector asks for.
"""
import argparse
import re
import sys
import unittest

from cluster import Cluster
from monitoring_files import BOARDS, MONITORING, board_expressions, board_of, rules
from promql_names import PromqlError, metric_names, selectors, without_grafana_variables

SAMPLE = re.compile(r'^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? \S+$')
LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="')
TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
ADDED_BY_PROMETHEUS = {"instance", "job"}
# What dashboards and schedulers made for vLLM read, of which Tessera has the value.
VLLM_NAMES = """
    vllm:num_requests_running vllm:num_requests_waiting vllm:num_requests_waiting_by_reason
    vllm:kv_cache_usage_perc vllm:cache_config_info vllm:prompt_tokens_total
    vllm:generation_tokens_total vllm:prompt_tokens_cached_total vllm:request_success_total
    vllm:num_preemptions_total vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total
    vllm:time_to_first_token_seconds_bucket vllm:inter_token_latency_seconds_bucket
    vllm:request_time_per_output_token_seconds_bucket vllm:e2e_request_latency_seconds_bucket
    vllm:request_queue_time_seconds_bucket vllm:request_prefill_time_seconds_bucket
    vllm:request_decode_time_seconds_bucket vllm:request_prompt_tokens_bucket
    vllm:request_generation_tokens_bucket vllm:request_max_num_generation_tokens_bucket
    vllm:request_params_n_bucket vllm:request_params_max_tokens_bucket
    vllm:iteration_tokens_total_bucket vllm:nixl_xfer_time_seconds_bucket
    vllm:nixl_bytes_transferred_bucket vllm:nixl_num_descriptors_bucket
    vllm:nixl_num_failed_transfers_total vllm:nixl_num_kv_expired_reqs_total
    http_requests_total http_request_duration_seconds_bucket process_resident_memory_bytes
    process_virtual_memory_bytes process_cpu_seconds_total process_open_fds process_max_fds
    process_start_time_seconds""".split()
# Of them, those of whoever faces clients: told by nobody else, so that sums count them once.
VLLM_OF_FRONTS = ("vllm:time_to_first_token_seconds", "vllm:request_success",
                  "vllm:e2e_request_latency_seconds", "vllm:request_params")


def series_of(text):
    """Name to the label sets of its series, of one /metrics page."""
    series = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found = SAMPLE.match(line)
            if not found:
                raise ValueError(f"not a sample: {line!r}")
            labels = frozenset(LABEL.findall(found.group(2) or ""))
            series.setdefault(found.group(1), set()).add(labels)
    return series


def faults_of(expression, series):
    """What `expression` reads that nobody exports: one line for each."""
    faults = []
    for name, labels in selectors(expression):
        if name not in series:
            faults.append(f"no role exports {name}")
            continue
        for label in set(labels) - ADDED_BY_PROMETHEUS:
            if not any(label in known for known in series[name]):
                faults.append(f"{name} has no label {label}")
    return faults


class PromqlNamesTest(unittest.TestCase):
    """The parser itself: what it must take for a metric and what not."""

    def test_finds_metrics_and_nothing_else(self):
        cases = {
            "up": {"up"},
            'sum by (le, role) (rate(a_bucket{role="x"}[5m]))': {"a_bucket"},
            "sum(rate(a_total[5m])) by (b) / on (c) group_left (d) e": {"a_total", "e"},
            "sum without(instance) (a) > bool 3 and b unless c or d": {"a", "b", "c", "d"},
            "histogram_quantile(0.99, sum by(le)(rate(x:y_bucket[1h30m] offset 5m)))": {"x:y_bucket"},
            'a{b="not_a_metric{}", c=~\'d|"e"\'} # f': {"a"},
            "max_over_time(deriv(a[10m])[30m:1m]) @ 1609746000": {"a"},
            '{__name__="a", b!="c"} - 1e3 + .5 * Inf': {"a"},
            "absent(a) or vector(0)": {"a"},
            "rate(a[$__rate_interval])": {"a"},
        }
        for expression, names in cases.items():
            self.assertEqual(metric_names(without_grafana_variables(expression)), names, expression)

    def test_refuses_what_it_cannot_check(self):
        for expression in ('{__name__=~"a.*"}', '{job="a"}', 'a{b="c"', 'rate(a[5m)', "a ; b",
                           'a{b}', 'a{b="c" d="e"}'):
            with self.assertRaises(PromqlError, msg=expression):
                metric_names(expression)


class ShapeTest(unittest.TestCase):
    def test_boards_have_their_own_ids_and_a_variable_datasource(self):
        uids = set()
        for name in BOARDS:
            board = board_of(name)
            uids.add(board["uid"])
            self.assertEqual(board["schemaVersion"], 39)
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), name)
            for panel in board["panels"]:
                for target in panel.get("targets", ()):
                    self.assertEqual(target["datasource"]["uid"], "${datasource}", panel["title"])
        self.assertEqual(len(uids), len(BOARDS))
        self.assertEqual({path.stem for path in (MONITORING / "dashboards").glob("*.json")},
                         set(BOARDS))

    def test_alerts_say_how_bad_and_what(self):
        alerts = [rule for rule in rules() if "alert" in rule]
        names = [rule["alert"] for rule in alerts]
        self.assertEqual(len(names), len(set(names)))
        for rule in alerts:
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"), rule["alert"])
            self.assertTrue(rule["annotations"]["summary"], rule["alert"])


class MetricsTest(unittest.TestCase):
    series = {}  # of all roles, before any request
    pages = {}   # of each

    def check(self, expressions):
        faults = [f"{where}: {fault}" for where, expression in expressions
                  for fault in faults_of(expression, self.series)]
        self.assertEqual(faults, [])

    def test_panels_read_what_roles_export(self):
        for name in BOARDS:
            board = board_of(name)
            expressions = list(board_expressions(board))
            self.assertGreater(len(expressions), 10, name)
            self.check(expressions)

    def test_variables_read_what_roles_export(self):
        for name in BOARDS:
            for variable in board_of(name)["templating"]["list"]:
                if variable["type"] == "query":
                    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
                    self.assertIn(found.group(1), self.series, name)

    def test_rules_read_what_roles_export(self):
        recorded = {rule["record"] for rule in rules() if "record" in rule}
        self.series = {**self.series, **{name: {frozenset()} for name in recorded}}
        self.check((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules())

    def test_an_unknown_metric_or_label_is_a_fault(self):
        known = 'rate(tessera_engine_steps_total{role="decode"}[5m])'
        self.assertEqual(faults_of(known, self.series), [])
        self.assertEqual(faults_of(known.replace("steps", "strides"), self.series),
                         ["no role exports tessera_engine_strides_total"])
        self.assertEqual(faults_of(known.replace("role", "rolle"), self.series),
                         ["tessera_engine_steps_total has no label rolle"])

    def test_vllm_names_are_there_from_the_start(self):
        self.assertEqual([name for name in VLLM_NAMES if name not in self.series], [])

    def test_what_clients_see_is_told_by_the_router_alone(self):
        for role, page in self.pages.items():
            told = [name for name in page if name.startswith(VLLM_OF_FRONTS)]
            self.assertEqual(bool(told), role == "router", f"{role}: {told}")

    def test_vllm_series_carry_its_labels(self):
        for name, label_sets in self.series.items():
            if name.startswith("vllm:"):
                for labels in label_sets:
                    self.assertLessEqual({"model_name", "engine"}, labels, name)


class WithoutCompatibilityTest(unittest.TestCase):
    page = {}
    types = {}

    def test_total_ends_the_names_of_counters_and_no_others(self):
        self.assertIn("counter", self.types.values())
        wrong = [f"{name} {kind}" for name, kind in self.types.items()
                 if name.endswith("_total") != (kind == "counter")]
        self.assertEqual(wrong, [])

    def test_has_no_names_of_others(self):
        others = [name for name in self.page if not name.startswith(("tessera_", "process_"))]
        self.assertEqual(others, [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    arguments, rest = parser.parse_known_args()
    small = ["--num-blocks", "64", "--max-model-len", "1024"]
    with Cluster(arguments.server, arguments.model, prefill=small, decode=small) as cluster:
        for role in cluster.roles:
            page = series_of(role.get("/metrics")[1])
            MetricsTest.pages[role.role] = page
            for name, labels in page.items():
                MetricsTest.series.setdefault(name, set()).update(labels)
    plain = ["--metrics-compat", "none"]
    with Cluster(arguments.server, arguments.model, prefill=small, decode=small, router=plain,
                 common=plain) as cluster:
        for role in cluster.roles:
            text = role.get("/metrics")[1]
            WithoutCompatibilityTest.page.update(series_of(text))
            WithoutCompatibilityTest.types.update(TYPE.findall(text))
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)


if __name__ == "__main__":
    main()
