"""Kustomize base, overlays and Helm chart: they render, strict schemas take them, the policy has nothing
to say, the binary takes their configurations; and broken ones do not pass."""
import json
import tempfile
import unittest

import yaml

import flags
import policy
import programs
import schemas
from rendering import (BASE, CHART, COMPONENTS, DEPLOY, OVERLAYS, ROOT, combine, find_program,
                       helm_template, kustomize, run)

HELM = find_program("helm")
NO_HELM = "not run: no helm here (tests/deploy/install_helm.py puts it beside the Python)"
CHART_VALUES = {"default": (), "monitored": ("--set", "podMonitor.enabled=true"),
                "digest": ("--set", "image.digest=sha256:" + "0" * 64),
                "dev-cpu": ("--values", str(CHART / "values-dev-cpu.yaml")),
                "tp-decode": ("--values", str(CHART / "values-tp-decode.yaml"))}
RPC_SSL = {f"TESSERA_RPC_SSL_{what}" for what in ("CERTFILE", "KEYFILE", "CA_CERTS", "NAME")}


def setUpModule():
    programs.main()
    print("schemas of Kubernetes", schemas.OLDEST_KUBERNETES, "and", schemas.KUBERNETES)


class SetsTest(unittest.TestCase):
    """What every rendered set has to keep."""

    def check(self, objects):
        self.assertEqual(schemas.faults_of(objects), [])
        self.assertEqual(policy.check(objects), [])
        for one in objects:
            if one["kind"] not in ("Namespace",):
                self.assertEqual(one["metadata"].get("namespace", "tessera"), "tessera")

    def test_base_is_well(self):
        self.check(kustomize(BASE))

    def test_overlays_are_well(self):
        names = {path.name for path in OVERLAYS}
        self.assertLessEqual({"dev-cpu", "single-node", "tp-decode", "rdma", "tls", "keda", "monitoring",
                              "production"}, names)
        for folder in OVERLAYS:
            with self.subTest(overlay=folder.name):
                self.check(kustomize(folder))

    def test_components_combine(self):
        self.assertEqual([path.name for path in COMPONENTS], ["keda", "monitoring", "tls"])
        overlays = {path.name: path for path in [BASE, *OVERLAYS]}
        sets = [[one] for one in COMPONENTS] + [COMPONENTS, COMPONENTS[::-1]]
        for overlay in ("base", "dev-cpu", "tp-decode", "rdma"):
            for components in sets if overlay in ("dev-cpu", "rdma") else sets[-1:]:
                names = [path.name for path in components]
                with self.subTest(overlay=overlay, components=names):
                    objects = combine(overlays[overlay], components)
                    self.check(objects)
                    self.check_additions(kustomize(overlays[overlay]), objects, set(names))
        self.check(combine(overlays["single-node"],
                           [one for one in COMPONENTS if one.name == "monitoring"]))

    def check_additions(self, before, objects, names):
        """Each component has done its part, and has taken nothing away."""
        self.assertEqual(bool(policy.of_kind(objects, "PodMonitor")), "monitoring" in names)
        self.assertEqual(bool(policy.of_kind(objects, "ScaledObject")), "keda" in names)
        for one in policy.of_kind(objects, "Deployment"):
            with self.subTest(deployment=one["metadata"]["name"]):
                env, old_env = (container_env(set_, one["metadata"]["name"]) for set_ in (objects, before))
                self.assertLessEqual(old_env.items(), env.items())
                self.assertEqual({name for name in env if "RPC_SSL" in name}, RPC_SSL if "tls" in names
                                 else set())
                self.assertEqual("replicas" in one["spec"], "keda" not in names)

    def test_production_is_tp_decode_with_all_components(self):
        overlays = {path.name: path for path in OVERLAYS}
        self.assertCountEqual(kustomize(overlays["production"]),
                              combine(overlays["tp-decode"], COMPONENTS))

    @unittest.skipUnless(HELM, NO_HELM)
    def test_chart_is_well(self):
        for name, arguments in CHART_VALUES.items():
            with self.subTest(values=name):
                objects, error = helm_template(arguments)
                self.assertEqual(error, "")
                self.check(objects)

    def test_binary_takes_the_workers_configurations(self):
        model = ROOT / "configs" / "demo_model"
        files = {text: (folder.name, name) for folder in [BASE, *OVERLAYS]
                 for name, text in configurations(kustomize(folder))}
        self.assertGreaterEqual(len(files), 5)
        for text, where in files.items():
            with self.subTest(file=where), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                config = json.loads(text)
                config.pop("api-key-file", None)  # of a Secret that is not here
                json.dump(config, file)
                file.flush()
                result = run([flags.server(), "check-config", "--config", file.name, "--model",
                              str(model), "--device", "cpu"])
                self.assertEqual(result.returncode, 0, result.stderr)


def container_env(objects, deployment):
    """{name: value} of a Deployment's first container."""
    pod = next(one for one in policy.of_kind(objects, "Deployment")
               if one["metadata"]["name"] == deployment)["spec"]["template"]["spec"]
    return {one["name"]: one["value"] for one in pod["containers"][0].get("env", [])}


def configurations(objects):
    """Configuration files but the routers': check-config knows no workers; roles_test.py starts one."""
    for one in policy.of_kind(objects, "ConfigMap"):
        is_dashboard = "grafana_dashboard" in one["metadata"].get("labels", {})
        for name, text in one["data"].items():
            if name in ("prefill.json", "decode.json", "serve.json") and not is_dashboard:
                yield name, text


class ChartTest(unittest.TestCase):
    """The chart against the base, and its schema of values."""

    @unittest.skipUnless(HELM, NO_HELM)
    def test_default_values_give_the_objects_of_the_base(self):
        objects, error = helm_template()
        self.assertEqual(error, "")
        chart, base = normal_form(objects), normal_form(kustomize(BASE))
        self.assertEqual(sorted(chart), sorted(base))
        for key, one in base.items():
            with self.subTest(object=key):
                self.assertEqual(chart[key], one)

    @unittest.skipUnless(HELM, NO_HELM)
    def test_chart_passes_strict_lint(self):
        result = run([HELM, "lint", "--strict", str(CHART)])
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    @unittest.skipUnless(HELM, NO_HELM)
    def test_schema_refuses_wrong_values(self):
        for value, word in (("image.tag=latest", "/image/tag"), ("image.digest=abc", "/image/digest"),
                            ("router.replicas=0", "/router/replicas"),
                            ("router.replica=3", "replica"),
                            ("decode.config.treads=4", "treads"),
                            ("decode.config.port=70000", "/decode/config/port"),
                            ("decode.config.host=127.0.0.1", "/decode/config/host"),
                            ("decode.teardownSeconds=1", "/decode/teardownSeconds"),
                            ("decode.config.attention-sharding=some", "attention-sharding"),
                            ("prefill.config.shutdown-timeout=null", "shutdown-timeout"),
                            ("prefill.resources.limits.memory=null", "memory"),
                            ("decode.env.UCX_TCP_PORT_RANGE=all", "UCX_TCP_PORT_RANGE"),
                            ("apiKeys.secretName=", "/apiKeys/secretName")):
            with self.subTest(value=value):
                objects, error = helm_template(("--set", value))
                self.assertIsNone(objects)
                self.assertIn(word, error)

    @unittest.skipUnless(HELM, NO_HELM)
    def test_grace_follows_the_values(self):
        objects, _ = helm_template(("--set", "decode.config.shutdown-timeout=1000",
                                    "--set", "decode.preStopSeconds=7"))
        decode = next(one for one in objects
                      if one["kind"] == "Deployment" and one["metadata"]["name"] == "tessera-decode")
        self.assertEqual(decode["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 1027)

    def test_schema_names_the_flags_of_the_binary(self):
        schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
        for role in ("router", "prefill", "decode"):
            named = set(schema["properties"][role]["properties"]["config"]["properties"])
            known = {flag for flag in flags.defaults_of(role) if not flag.startswith("no-")}
            with self.subTest(role=role):
                # Left out on purpose: the file itself, keys in plain text, faults for tests, and a
                # port that the chart's Services, policies and scrapes do not have.
                self.assertEqual(named, known - {"config", "api-key", "handoff-faults",
                                                 "metrics-host", "metrics-port"},
                                 'a new flag needs a line "flag": true in values.schema.json')


def normal_form(objects):
    """{(kind, name): object} without what only one of the two tools writes."""
    result = {}
    hashed = {one["metadata"]["name"]: one["metadata"]["name"].rpartition("-")[0]
              for one in policy.of_kind(objects, "ConfigMap")
              if one["metadata"]["name"].count("-") > 1}
    text = json.dumps([one for one in objects if one["kind"] != "Namespace"])
    for long, short in hashed.items():
        text = text.replace(f'"{long}"', f'"{short}"')
    for one in json.loads(text):
        meta = one["metadata"]
        meta.pop("namespace", None)
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            meta["labels"].pop(label, None)
        if one["kind"] == "ConfigMap":
            one["data"] = {name: json.loads(data) for name, data in one["data"].items()}
        if one["kind"] == "Deployment":
            template = one["spec"]["template"]
            template["metadata"].pop("annotations", None)  # the chart's checksum
            for container in template["spec"]["containers"]:
                container.pop("imagePullPolicy", None)
        result[one["kind"], meta["name"]] = one
    return result


class MonitoringTest(unittest.TestCase):
    """The overlays against deploy/monitoring and the metrics that there are."""

    def test_rules_and_dashboards_are_those_of_the_folder(self):
        objects = kustomize(DEPLOY / "kustomize" / "overlays" / "monitoring")
        rules = sorted((DEPLOY / "monitoring" / "rules").glob("*.rules.yaml"))
        self.assertTrue(rules)
        groups = [group for path in rules
                  for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
        rule = next(one for one in objects if one["kind"] == "PrometheusRule")
        self.assertEqual(rule["spec"]["groups"], groups,
                         "prometheus-rule.yaml is out of date: see its first lines")
        shown = {name.removeprefix("tessera-") for one in policy.of_kind(objects, "ConfigMap")
                 if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
                 for name in one["data"]}
        self.assertEqual(shown, {path.name for path in (DEPLOY / "monitoring" / "dashboards").iterdir()
                                 if path.suffix == ".json"})

    def test_autoscalers_ask_for_metrics_that_exist(self):
        sources = "".join(path.read_text(encoding="utf-8") for folder in ("metrics", "roles", "openai")
                          for path in (ROOT / "server" / folder).glob("*famil*.cpp"))
        for one in policy.of_kind(kustomize(DEPLOY / "kustomize" / "overlays" / "keda"), "ScaledObject"):
            for trigger in one["spec"]["triggers"]:
                name = trigger["metadata"]["query"].partition("{")[0].rpartition("(")[2]
                self.assertIn(f'"{name}"', sources)


if __name__ == "__main__":
    unittest.main(verbosity=2)
