"""Strict schemas of rendered objects: Kubernetes' own of kubernetes-validate, ours for custom ones."""
import json
from pathlib import Path

import jsonschema
import kubernetes_validate

CUSTOM = json.loads(Path(__file__).with_name("custom_resources.json").read_text(encoding="utf-8"))
KUBERNETES = "1.37"
OLDEST_KUBERNETES = "1.30"  # the chart's kubeVersion: preStop.sleep


def faults_of(objects):
    """One line for each object that its schema refuses."""
    faults = []
    for one in objects:
        name = f"{one['kind']} {one['metadata']['name']}"
        try:
            if one["kind"] in CUSTOM:
                validate_custom(one)
            else:
                for version in (KUBERNETES, OLDEST_KUBERNETES):
                    kubernetes_validate.validate(one, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError,
                kubernetes_validate.SchemaNotFoundError) as error:
            faults.append(f"{name}: {getattr(error, 'message', error)}")
    return faults


def validate_custom(one):
    known = CUSTOM[one["kind"]]
    if one["apiVersion"] != known["apiVersion"]:
        raise jsonschema.ValidationError(f"apiVersion {one['apiVersion']}")
    jsonschema.validate(one["spec"], known["spec"])
