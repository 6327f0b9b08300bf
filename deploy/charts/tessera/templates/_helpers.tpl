{{/* Templates take (dict "root" $ "role" "decode"). */}}

{{- define "tessera.selector" -}}
app.kubernetes.io/name: tessera
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "tessera.labels" -}}
{{ include "tessera.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tessera.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The role's configuration file; a router's workers are the Services of this release. */}}
{{- define "tessera.config" -}}
{{- $config := deepCopy (index .root.Values .role).config -}}
{{- if eq .role "router" -}}
{{- $name := .root.Release.Name -}}
{{- $values := .root.Values -}}
{{- $prefill := printf "dns:%s-prefill:%v" $name (index $values.prefill.config "rpc-port") -}}
{{- $decode := printf "dns:%s-decode:%v" $name (index $values.decode.config "rpc-port") -}}
{{- $config = merge $config (dict "prefill-workers" (list $prefill) "decode-workers" (list $decode)) -}}
{{- end -}}
{{ toPrettyJson $config }}
{{- end }}

{{- define "tessera.grace" -}}
{{- $role := index .root.Values .role -}}
{{ add $role.preStopSeconds (index $role.config "shutdown-timeout") $role.teardownSeconds }}
{{- end }}

{{- define "tessera.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What the containers of all roles share behind their ports and probes. */}}
{{- define "tessera.containerTail" -}}
{{- $role := index .root.Values .role -}}
livenessProbe:
  httpGet:
    path: /livez
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  periodSeconds: 3
  failureThreshold: 2
lifecycle:
  preStop:
    sleep:
      seconds: {{ $role.preStopSeconds }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml $role.resources | nindent 2 }}
{{- with $role.env }}
env:
  {{- range $name, $value := . }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Placement, behind the containers. */}}
{{- define "tessera.placement" -}}
{{- $role := index .root.Values .role -}}
{{- with $role.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $role.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $role.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tessera.modelVolume" -}}
{{- if .Values.model.claimName -}}
persistentVolumeClaim:
  claimName: {{ .Values.model.claimName }}
  readOnly: true
{{- else -}}
emptyDir:
  sizeLimit: 1Mi
{{- end -}}
{{- end }}
