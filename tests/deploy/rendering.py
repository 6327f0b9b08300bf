"""Renders Kustomize folders and the Helm chart, offline, into lists of Kubernetes objects."""
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kustomize" / "base"
OVERLAYS = sorted(path for path in (DEPLOY / "kustomize" / "overlays").iterdir() if path.is_dir())
COMPONENTS = sorted(path for path in (DEPLOY / "kustomize" / "components").iterdir() if path.is_dir())
CHART = DEPLOY / "charts" / "tessera"


def find_program(name):
    """The program beside this Python, else on the PATH; None where there is none."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def load_all(text):
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def _render(folder):
    result = run([find_program("kubectl"), "kustomize", str(folder)])
    if result.returncode != 0:
        raise AssertionError(f"kubectl kustomize {folder}: {result.stderr}")
    return result.stdout


_kustomize_text = functools.cache(_render)


def kustomize(folder):
    """The objects of a folder, new ones at each call."""
    return load_all(_kustomize_text(folder))


def combine(overlay, components):
    """The objects of an overlay with components, as a Kustomization of a user's own would have them."""
    with tempfile.TemporaryDirectory() as folder:
        def names(paths):
            return [os.path.relpath(path, os.path.realpath(folder)) for path in paths]
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(
            {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
             "namespace": "tessera", "resources": names([overlay]), "components": names(components)}),
            encoding="utf-8")
        return load_all(_render(folder))


def helm_template(arguments=()):
    """(objects, error text) of the chart as release `tessera`; objects is None when helm refuses."""
    result = run([find_program("helm"), "template", "tessera", str(CHART), "--namespace", "tessera",
                  *arguments], env={**os.environ, "HELM_CACHE_HOME": "/nonexistent"})
    if result.returncode != 0:
        return None, result.stderr
    return load_all(result.stdout), ""


def config_of(objects, container, pod):
    """The configuration file that a role's container starts with, as the rendered ConfigMap has it;
    environment variables win, as in the binary."""
    path = container["args"][container["args"].index("--config") + 1]
    for mount in container.get("volumeMounts", []):
        folder = mount["mountPath"]
        if os.path.dirname(path) != folder:
            continue
        volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
        name = volume["configMap"]["name"]
        data = next(one for one in objects
                    if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name)["data"]
        config = json.loads(data[os.path.basename(path)])
        for variable in container.get("env", []):
            if variable["name"].startswith("TESSERA_"):
                config[variable["name"][len("TESSERA_"):].lower().replace("_", "-")] = variable["value"]
        return config
    raise KeyError(path)
