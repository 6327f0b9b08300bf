"""The policy finds what is broken: each case breaks the base in one place and must be named."""
import json
import unittest

import policy
import schemas
from rendering import BASE, DEPLOY, kustomize

MONITORING = DEPLOY / "kustomize" / "overlays" / "monitoring"
KEDA = DEPLOY / "kustomize" / "overlays" / "keda"


def find(objects, kind, name):
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


def pod(objects, role="decode"):
    return find(objects, "Deployment", f"tessera-{role}")["spec"]["template"]["spec"]


def container(objects, role="decode"):
    return pod(objects, role)["containers"][0]


def service(objects, role="decode"):
    return find(objects, "Service", f"tessera-{role}")["spec"]


def network(objects, role):
    return find(objects, "NetworkPolicy", f"tessera-{role}")["spec"]


def set_config(objects, role, **values):
    name = f"{role}.json"
    for one in policy.of_kind(objects, "ConfigMap"):
        if name in one["data"]:
            config = json.loads(one["data"][name])
            config.update({key.replace("_", "-"): value for key, value in values.items()})
            one["data"][name] = json.dumps(config)


def drop_port(objects, role, side, port):
    for rule in network(objects, role)[side]:
        rule["ports"] = [one for one in rule["ports"] if one["port"] != port]


def drop_peer(objects, role, side, kind):
    key = "to" if side == "egress" else "from"
    for rule in network(objects, role)[side]:
        rule[key] = [one for one in rule[key] if kind not in one]


# What is done to a set of objects: the words that the policy must say.
BREAKS = [
    ("image latest", lambda o: container(o).update(image="tessera:latest"), "no fixed tag"),
    ("image without a tag", lambda o: container(o).update(image="tessera"), "no fixed tag"),
    ("image of a registry", lambda o: container(o).update(image="registry.example/tessera:1"),
     "names a registry host"),
    ("no limits", lambda o: container(o)["resources"].pop("limits"), "no limits of memory"),
    ("no cpu request", lambda o: container(o)["resources"]["requests"].pop("cpu"), "no requests of cpu"),
    ("no liveness", lambda o: container(o).pop("livenessProbe"), "no livenessProbe"),
    ("liveness asks readiness",
     lambda o: container(o)["livenessProbe"]["httpGet"].update(path="/readyz"), "does not ask /livez"),
    ("probe of no port", lambda o: container(o)["readinessProbe"]["httpGet"].update(port="web"),
     "unknown port web"),
    ("wrong health service",
     lambda o: container(o)["startupProbe"]["grpc"].update(service="tessera.v1.Decode"),
     "unknown service"),
    ("root", lambda o: pod(o)["securityContext"].update(runAsNonRoot=False), "run as root"),
    ("writable root", lambda o: container(o)["securityContext"].update(readOnlyRootFilesystem=False),
     "writable"),
    ("capabilities kept", lambda o: container(o)["securityContext"].pop("capabilities"),
     "keeps capabilities"),
    ("capability added",
     lambda o: container(o)["securityContext"]["capabilities"].update(add=["IPC_LOCK"]),
     "adds capabilities"),
    ("no seccomp", lambda o: pod(o)["securityContext"].pop("seccompProfile"), "seccomp"),
    ("token", lambda o: pod(o).update(automountServiceAccountToken=True), "service account token"),
    ("service links", lambda o: pod(o).pop("enableServiceLinks"), "would set TESSERA_PORT"),
    ("host network", lambda o: pod(o).update(hostNetwork=True), "hostNetwork"),
    ("host path", lambda o: pod(o)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
     "hostPath"),
    ("short grace", lambda o: pod(o).update(terminationGracePeriodSeconds=610), "grace 610 s is less"),
    ("longer drain", lambda o: set_config(o, "decode", shutdown_timeout=900), "is less than preStop"),
    ("no pause", lambda o: container(o).pop("lifecycle"), "no preStop pause"),
    ("requests outlive the drain", lambda o: set_config(o, "router", request_timeout=1200),
     "cuts requests"),
    ("unknown option", lambda o: set_config(o, "decode", num_threads=4), "has no --num-threads"),
    ("unknown flag", lambda o: container(o)["args"].append("--fast"), "has no --fast"),
    ("unknown variable",
     lambda o: container(o)["env"].append({"name": "TESSERA_TREADS", "value": "1"}), "has no --treads"),
    ("other file", lambda o: container(o).update(args=["decode", "--config", "/etc/tessera/x.json"]),
     "names no file"),
    ("other port", lambda o: set_config(o, "decode", port=8003), "is not the configuration's"),
    ("service of nobody", lambda o: service(o)["selector"].update({"app.kubernetes.io/component": "x"}),
     "selects 0 workloads"),
    ("service of a wrong port", lambda o: service(o)["ports"][0].update(targetPort="web"),
     "unknown port web"),
    ("workers behind one address", lambda o: service(o).pop("clusterIP"), "addresses of ready Pods"),
    ("workers elsewhere", lambda o: set_config(o, "router", decode_workers=["dns:decode:9002"]),
     "which is no Service"),
    ("roles mixed up", lambda o: set_config(o, "router", decode_workers=["dns:tessera-prefill:9001"]),
     "is no decode worker"),
    ("budget of nobody", lambda o: find(o, "PodDisruptionBudget", "tessera-decode")["spec"]["selector"]
     ["matchLabels"].update({"app.kubernetes.io/component": "x"}), "0 disruption budgets"),
    ("budget that blocks", lambda o: find(o, "PodDisruptionBudget", "tessera-decode")["spec"].update(
        maxUnavailable=0), "does not let one Pod go"),
    ("rollout stuck", lambda o: find(o, "Deployment", "tessera-decode")["spec"]["strategy"]
     ["rollingUpdate"].update(maxSurge=0, maxUnavailable=0), "neither add nor remove"),
    ("no default deny", lambda o: o.remove(find(o, "NetworkPolicy", "tessera-default-deny")),
     "not denied by default"),
    ("metrics shut", lambda o: drop_port(o, "decode", "ingress", 8002), "opens port http 8002"),
    ("caches shut", lambda o: drop_port(o, "prefill", "egress", 10000), "for caches"),
    ("cache range moved",
     lambda o: container(o)["env"][0].update(value="20000-20999"), "for caches"),
    ("calls shut", lambda o: drop_port(o, "router", "egress", 9001), "for grpc"),
    ("open to all", lambda o: network(o, "decode")["ingress"].append({"ports": [{"port": 9002}]}),
     "to everybody"),
    ("no names", lambda o: drop_port(o, "router", "egress", 53), "ask DNS of kube-system over TCP"),
    ("no names from the node", lambda o: drop_peer(o, "router", "egress", "ipBlock"),
     "ask NodeLocal DNSCache over UDP"),
    ("no names in OpenShift", lambda o: drop_port(o, "router", "egress", 5353), "ask OpenShift's DNS"),
    ("no keys", lambda o: set_config(o, "router", api_key_file="/tmp/keys"), "no api-key-file"),
    ("key in the open", lambda o: set_config(o, "router", api_key=["k"]), "stands in the configuration"),
    ("model writable", lambda o: container(o)["volumeMounts"][1].update(readOnly=False),
     "model is writable"),
    ("no shared memory", lambda o: pod(o)["volumes"].__setitem__(
        2, {"name": "shm", "emptyDir": {}}), "bounded memory at /dev/shm"),
    ("too few GPUs", lambda o: set_config(o, "decode", device="cuda"), "GPUs for 2 ranks"),
]


class PolicyTest(unittest.TestCase):
    def test_names_each_broken_set(self):
        for name, breaks, words in BREAKS:
            with self.subTest(broken=name):
                objects = kustomize(BASE)
                breaks(objects)
                faults = policy.check(objects)
                self.assertTrue(any(words in fault for fault in faults), faults)

    def test_names_scrapes_that_cannot_work(self):
        for breaks, words in (
                (lambda one: one["spec"]["podMetricsEndpoints"][0].pop("authorization"), "without the key"),
                (lambda one: one["spec"]["podMetricsEndpoints"][0].update(port="web"), "scraped at web"),
                (lambda one: one["spec"]["selector"]["matchLabels"].update({"x": "y"}), "0 PodMonitors")):
            objects = kustomize(MONITORING)
            breaks(find(objects, "PodMonitor", "tessera-router"))
            self.assertTrue(any(words in fault for fault in policy.check(objects)), words)

    def test_names_autoscalers_with_rivals(self):
        objects = kustomize(KEDA)
        find(objects, "Deployment", "tessera-decode")["spec"]["replicas"] = 2
        find(objects, "ScaledObject", "tessera-prefill")["spec"]["scaleTargetRef"]["name"] = "x"
        faults = policy.check(objects)
        self.assertTrue(any("beside an autoscaler" in fault for fault in faults))
        self.assertTrue(any("scales nothing" in fault for fault in faults))

    def test_schemas_refuse_unknown_fields(self):
        for folder, kind, field in ((BASE, "Deployment", "replica"), (BASE, "NetworkPolicy", "ingres"),
                                    (KEDA, "ScaledObject", "minReplicas"),
                                    (MONITORING, "PodMonitor", "endpoints")):
            objects = kustomize(folder)
            next(one for one in objects if one["kind"] == kind)["spec"][field] = 1
            with self.subTest(kind=kind):
                self.assertEqual(len(schemas.faults_of(objects)), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
