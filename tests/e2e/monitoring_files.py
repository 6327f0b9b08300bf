"""Reads the dashboards and rules of deploy/monitoring for the tests."""
import json
import pathlib

import yaml

from promql_names import without_grafana_variables

MONITORING = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "tessera.rules.yaml"
RULE_TESTS = MONITORING / "rules" / "tessera.rules.test.yaml"
BOARDS = ("overview", "prefill", "decode", "handoff")


def board_of(name):
    return json.loads((MONITORING / "dashboards" / f"{name}.json").read_text())


def board_expressions(board):
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"{board['title']}: {panel['title']}", without_grafana_variables(target["expr"])


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
