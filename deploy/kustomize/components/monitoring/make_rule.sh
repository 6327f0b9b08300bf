#!/usr/bin/env bash
# Writes prometheus-rule.yaml, the operator's form of deploy/monitoring/rules/tessera.rules.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
{
  cat <<'HEAD'
# Made by make_rule.sh beside this file from deploy/monitoring/rules/tessera.rules.yaml: edit that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tessera
  labels:
    app.kubernetes.io/name: tessera
    app.kubernetes.io/instance: tessera
spec:
HEAD
  sed -e '/./s/^/  /' ../../../monitoring/rules/tessera.rules.yaml
} >prometheus-rule.yaml
