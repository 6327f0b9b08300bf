"""What every set of manifests of Tessera has to keep. check(objects) gives the faults as lines; none is
well. The rules know the binary by its help and proto/ by its services, nothing else."""
import re

import flags
from rendering import config_of

TEARDOWN_S = 15  # after the last request: last writes, links, threads, memory
HOST_NAME = re.compile(r"^[^/]*[.:][^/]*/")  # a registry before the first slash
HEALTH_PATHS = {"/livez", "/readyz"}
CACHE_PORTS = "UCX_TCP_PORT_RANGE"


def in_namespace(name):
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


DNS_SERVERS = (("DNS of kube-system", in_namespace("kube-system"), 53),
               ("NodeLocal DNSCache", {"ipBlock": {"cidr": "169.254.20.10/32"}}, 53),
               ("OpenShift's DNS", in_namespace("openshift-dns"), 5353))


class Workload:
    """A Deployment, seen as its Pods."""

    def __init__(self, deployment, objects):
        self.name = deployment["metadata"]["name"]
        self.spec = deployment["spec"]
        self.template = deployment["spec"]["template"]
        self.pod = self.template["spec"]
        self.labels = self.template["metadata"]["labels"]
        self.containers = self.pod["containers"]
        self.roles = [one for one in self.containers if (one.get("args") or [""])[0] in flags.ROLES]
        self.configs = {one["name"]: config_of(objects, one, self.pod) for one in self.roles}

    def ports(self):
        return {port["name"]: port["containerPort"]
                for one in self.containers for port in one.get("ports", [])}

    def cache_range(self):
        for one in self.roles:
            for variable in one.get("env", []):
                if variable["name"] == CACHE_PORTS:
                    first, last = variable["value"].split("-")
                    return int(first), int(last)
        return None


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def check(objects):
    """All faults of a rendered set."""
    try:
        workloads = [Workload(one, objects) for one in of_kind(objects, "Deployment")]
    except (KeyError, ValueError, StopIteration) as error:
        return [f"a role's --config names no file of a mounted ConfigMap: {error!r}"]
    faults = []
    for workload in workloads:
        for rule in (check_pod, check_rollout, check_containers, check_role_flags, check_ports,
                     check_grace, check_keys, check_memory):
            faults += [f"{workload.name}: {text}" for text in rule(workload, objects)]
    for rule in (check_services, check_discovery, check_budgets, check_policies, check_scrapes,
                 check_scalers):
        faults += rule(workloads, objects)
    return faults


# One Pod

def check_pod(workload, _objects):
    pod = workload.pod
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "Pod may run as root or as a user by chance"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "mounts a service account token"
    if pod.get("enableServiceLinks") is not False:
        yield "a Service named tessera would set TESSERA_PORT, which the binary reads as --port"
    for flag in ("hostNetwork", "hostIPC", "hostPID", "shareProcessNamespace"):
        if pod.get(flag):
            yield f"{flag} is set"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"


def check_rollout(workload, _objects):
    strategy = workload.spec.get("strategy", {})
    if strategy.get("type") == "Recreate":
        return
    rolling = strategy.get("rollingUpdate", {})
    if rolling.get("maxSurge") == 0 and rolling.get("maxUnavailable") == 0:
        yield "a rollout can neither add nor remove a Pod"
    if rolling.get("maxUnavailable") not in (0, 1):
        yield "a rollout may take more than one Pod at a time"


def check_containers(workload, objects):
    level = next((one["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
                  for one in of_kind(objects, "Namespace")), "restricted")
    for one in workload.containers:
        for text in container_faults(one, level):
            yield f"container {one['name']}: {text}"


def container_faults(one, level):
    image = one.get("image", "")
    tag = image.split("@")[0].rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        yield f"image {image} has no fixed tag"
    if HOST_NAME.match(image):
        yield f"image {image} names a registry host"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe not in one:
            yield f"no {probe}"
    resources = one.get("resources", {})
    for kind in ("requests", "limits"):
        for what in ("cpu", "memory"):
            if what not in resources.get(kind, {}):
                yield f"no {kind} of {what}"
    security = one.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may gain privileges"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "root file system is writable"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"]:
        yield "keeps capabilities"
    added = set(capabilities.get("add", []))
    if added and (level != "privileged" or added != {"IPC_LOCK"}):
        yield f"adds capabilities {sorted(added)} in a namespace of level {level}"
    mounts = {mount["mountPath"]: mount for mount in one.get("volumeMounts", [])}
    if "/tmp" not in mounts:
        yield "nothing is mounted at /tmp"
    if "/models" in mounts and not mounts["/models"].get("readOnly"):
        yield "the model is writable"


def check_role_flags(workload, _objects):
    for one in workload.roles:
        role, *arguments = one["args"]
        known = flags.defaults_of(role)
        used = [text.lstrip("-").split("=")[0] for text in arguments if text.startswith("--")]
        for flag in [*used, *workload.configs[one["name"]]]:
            if flag not in known:
                yield f"tessera {role} has no --{flag}"


def check_ports(workload, _objects):
    ports = workload.ports()
    for one in workload.roles:
        config = workload.configs[one["name"]]
        own = {port["name"]: port["containerPort"] for port in one.get("ports", [])}
        if own.get("http") != config.get("port"):
            yield f"port http {own.get('http')} is not the configuration's {config.get('port')}"
        is_open = config.get("rpc-host") == "0.0.0.0"
        if is_open and own.get("grpc") != config.get("rpc-port"):
            yield f"port grpc {own.get('grpc')} is not the configuration's {config.get('rpc-port')}"
        if config.get("host") != "0.0.0.0":
            yield "the HTTP port is out of reach of probes"
        yield from probe_faults(one, config)
    for one in workload.containers:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = one.get(kind, {})
            port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{kind} asks the unknown port {port}"


def probe_faults(one, config):
    for kind, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if one.get(kind, {}).get("httpGet", {}).get("path") != path:
            yield f"{kind} does not ask {path}"
    startup = one.get("startupProbe", {})
    if "grpc" in startup:
        if startup["grpc"]["port"] != config.get("rpc-port"):
            yield "startupProbe asks another port than rpc-port"
        if startup["grpc"].get("service", "") not in flags.grpc_services() | {""}:
            yield f"startupProbe asks for the unknown service {startup['grpc']['service']}"
    elif startup.get("httpGet", {}).get("path") not in HEALTH_PATHS:
        yield "startupProbe asks no health path"


def check_grace(workload, _objects):
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    for one in workload.containers:
        sleep = one.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
        if sleep is None:
            yield f"container {one['name']}: no preStop pause"
            continue
        if one["name"] not in workload.configs:
            continue
        default = flags.defaults_of(one["args"][0])["shutdown-timeout"]
        config = workload.configs[one["name"]]
        drain = int(config.get("shutdown-timeout", default))
        if grace < sleep + drain + TEARDOWN_S:
            yield (f"grace {grace} s is less than preStop {sleep} + shutdown-timeout {drain} + "
                   f"teardown {TEARDOWN_S}")
        longest = config.get("request-timeout")
        if longest is not None and drain < int(longest):
            yield f"shutdown-timeout {drain} cuts requests of up to {longest} s"


def check_keys(workload, _objects):
    for one in workload.roles:
        if one["args"][0] not in ("router", "serve"):
            continue
        path = workload.configs[one["name"]].get("api-key-file", "")
        mounts = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}
        volume = mounts.get(path.rpartition("/")[0])
        if not any(entry["name"] == volume and "secret" in entry for entry in workload.pod["volumes"]):
            yield "no api-key-file of a mounted Secret"
        if any("api-key" == key for key in workload.configs[one["name"]]):
            yield "an API key stands in the configuration"


def check_memory(workload, _objects):
    volumes = {one["name"]: one for one in workload.pod.get("volumes", [])}
    for one in workload.roles:
        config = workload.configs[one["name"]]
        limits = one.get("resources", {}).get("limits", {})
        gpus = limits.get("nvidia.com/gpu", 0)
        ranks = int(config.get("tensor-parallel-size", 2 if one["args"][0] == "decode" else 1))
        if config.get("device") == "cuda" and gpus != ranks:
            yield f"{gpus} GPUs for {ranks} ranks"
        if gpus and config.get("device") != "cuda":
            yield "has GPUs and does not use them"
        if one["args"][0] == "router":
            continue
        shm = next((volumes[mount["name"]] for mount in one["volumeMounts"]
                    if mount["mountPath"] == "/dev/shm"), {}).get("emptyDir", {})
        if shm.get("medium") != "Memory" or "sizeLimit" not in shm:
            yield "no bounded memory at /dev/shm"
        elif size_of(shm["sizeLimit"]) > size_of(limits.get("memory", "0")):
            yield "/dev/shm may outgrow the memory limit"


def size_of(text):
    match = re.fullmatch(r"(\d+)([KMGT]i)?", str(text))
    return int(match.group(1)) * 1024 ** " KMGT".index((match.group(2) or " ")[0])


# Between objects

def check_services(workloads, objects):
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        behind = [one for one in workloads if matches(service["spec"]["selector"], one.labels)]
        if len(behind) != 1:
            yield f"Service {name} selects {len(behind)} workloads"
            continue
        ports = behind[0].ports()
        for port in service["spec"]["ports"]:
            target = port["targetPort"]
            if target not in ports and target not in ports.values():
                yield f"Service {name} leads to the unknown port {target}"
            elif service["spec"].get("clusterIP") == "None" and port["port"] != ports.get(target):
                yield f"headless Service {name} names port {port['port']}, Pods have {ports.get(target)}"


def check_discovery(workloads, objects):
    services = {one["metadata"]["name"]: one for one in of_kind(objects, "Service")}
    for workload in workloads:
        for config in workload.configs.values():
            for role in ("prefill", "decode"):
                for entry in config.get(f"{role}-workers", []):
                    _, name, port = entry.split(":")
                    yield from worker_name_faults(services.get(name), name, int(port), role, workloads)


def worker_name_faults(service, name, port, role, workloads):
    if service is None:
        yield f"{role} workers are looked for at {name}, which is no Service"
        return
    if service["spec"].get("clusterIP") != "None" or service["spec"].get("publishNotReadyAddresses"):
        yield f"Service {name} does not give the addresses of ready Pods"
    for workload in workloads:
        if matches(service["spec"]["selector"], workload.labels):
            if [one["args"][0] for one in workload.roles] != [role]:
                yield f"Service {name} leads to {workload.name}, which is no {role} worker"
            elif workload.ports().get("grpc") != port:
                yield f"{role} workers are looked for at port {port} of {name}"


def check_budgets(workloads, objects):
    budgets = of_kind(objects, "PodDisruptionBudget")
    for workload in workloads:
        own = [one for one in budgets
               if matches(one["spec"]["selector"]["matchLabels"], workload.labels)]
        if len(own) != 1:
            yield f"{workload.name}: {len(own)} disruption budgets"
    for one in budgets:
        name = one["metadata"]["name"]
        if one["spec"].get("maxUnavailable") != 1:
            yield f"PodDisruptionBudget {name} does not let one Pod go"
        if not any(matches(one["spec"]["selector"]["matchLabels"], item.labels) for item in workloads):
            yield f"PodDisruptionBudget {name} selects nothing"


def check_policies(workloads, objects):
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    for workload in workloads:
        own = [one for one in policies if matches(one["podSelector"].get("matchLabels", {}),
                                                  workload.labels)]
        if not any(not one.get("ingress") and not one.get("egress") and
                   set(one["policyTypes"]) == {"Ingress", "Egress"} for one in own):
            yield f"{workload.name}: traffic is not denied by default"
        opened = [rule for one in own for rule in one.get("ingress") or []]
        for name, port in workload.ports().items():
            if not any(covers(rule, port, port) for rule in opened):
                yield f"{workload.name}: no NetworkPolicy opens port {name} {port}"
        for rule in opened:
            if not rule.get("from"):
                yield f"{workload.name}: a NetworkPolicy opens ports to everybody"
    yield from flow_faults(workloads, policies)


def covers(rule, first, last):
    return any(port["port"] <= first and last <= port.get("endPort", port["port"])
               for port in rule.get("ports", []) if port.get("protocol", "TCP") == "TCP")


def is_allowed(policies, source, target, first, last):
    def has(kind, side, own, other):
        return any(covers(rule, first, last) and
                   any(matches(peer["podSelector"]["matchLabels"], other.labels)
                       for peer in rule.get(side, []) if "podSelector" in peer)
                   for one in policies if matches(one["podSelector"].get("matchLabels", {}), own.labels)
                   for rule in one.get(kind) or [])
    return has("egress", "to", source, target) and has("ingress", "from", target, source)


def flow_faults(workloads, policies):
    by_role = {one["args"][0]: workload for workload in workloads for one in workload.roles}
    router, prefill, decode = (by_role.get(role) for role in ("router", "prefill", "decode"))
    if router is None or prefill is None or decode is None:
        return
    flows = [(router, prefill, "grpc"), (router, decode, "grpc"), (prefill, decode, "grpc"),
             (prefill, decode, "caches"), (decode, prefill, "caches")]
    for source, target, what in flows:
        span = target.cache_range() if what == "caches" else (target.ports().get("grpc"),) * 2
        if span is None or span[0] is None:
            yield f"{target.name}: no ports for {what}"
        elif not is_allowed(policies, source, target, *span):
            yield f"NetworkPolicies do not let {source.name} reach {target.name} for {what}"
    for source, target in ((decode, router), (prefill, router), (decode, prefill)):
        port = target.ports().get("grpc")
        if port is not None and is_allowed(policies, source, target, port, port):
            yield f"NetworkPolicies let {source.name} call {target.name}"
    yield from dns_faults(router, policies)


def dns_faults(router, policies):
    """The router looks its workers up by name, whoever answers for DNS in the cluster."""
    rules = [rule for one in policies if matches(one["podSelector"].get("matchLabels", {}), router.labels)
             for rule in one.get("egress") or []]
    for name, peer, port in DNS_SERVERS:
        for protocol in ("UDP", "TCP"):
            if not any(peer in rule.get("to", []) and {"protocol": protocol, "port": port} in rule["ports"]
                       for rule in rules):
                yield f"NetworkPolicies do not let {router.name} ask {name} over {protocol}"


def check_scrapes(workloads, objects):
    monitors = of_kind(objects, "PodMonitor")
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    for workload in workloads if monitors else []:
        own = [one["spec"] for one in monitors
               if matches(one["spec"]["selector"]["matchLabels"], workload.labels)]
        if len(own) != 1:
            yield f"{workload.name}: {len(own)} PodMonitors"
            continue
        for endpoint in own[0]["podMetricsEndpoints"]:
            if endpoint["port"] != "http" or endpoint["path"] != "/metrics":
                yield f"{workload.name}: scraped at {endpoint['port']} {endpoint['path']}"
            needs_key = any("api-key-file" in config for config in workload.configs.values())
            if needs_key and "authorization" not in endpoint:
                yield f"{workload.name}: scraped without the key that /metrics wants"
        port = workload.ports().get("http")
        if not any(covers(rule, port, port) and any("namespaceSelector" in peer for peer in rule["from"])
                   for one in policies if matches(one["podSelector"].get("matchLabels", {}), workload.labels)
                   for rule in one.get("ingress") or []):
            yield f"{workload.name}: NetworkPolicies keep Prometheus out"


def check_scalers(workloads, objects):
    names = {one.name: one for one in workloads}
    for one in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        target = names.get(one["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"{one['kind']} {one['metadata']['name']} scales nothing"
        elif "replicas" in target.spec:
            yield f"{target.name}: has replicas of its own beside an autoscaler"
