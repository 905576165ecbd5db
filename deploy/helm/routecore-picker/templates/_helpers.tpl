{{/* Whether pods exchange their load; workers of one pod do so by themselves, on no port. */}}
{{- define "picker.shares" -}}
{{- if and .Values.shareLoad (le (int (.Values.settings.workers | default 1)) 1) -}}yes{{- end -}}
{{- end -}}

{{/* Settings as the picker reads them: the operator's, and what follows from the rest. */}}
{{- define "picker.settings" -}}
{{- $made := dict "endpoints" (printf "pool:%s" .Values.pool.name) -}}
{{- if include "picker.shares" . -}}
{{- $_ := set $made "replicas" (printf "zmq://%s-peers:%d" .Release.Name (int .Values.sharePort)) -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $made "tls_certificate" "/etc/routecore-tls/tls.crt" -}}
{{- $_ := set $made "tls_key" "/etc/routecore-tls/tls.key" -}}
{{- $_ := set $made "health_port" 9003 -}}
{{- end -}}
{{- toYaml (mergeOverwrite $made .Values.settings) -}}
{{- end -}}

{{- define "picker.labels" -}}
app: {{ .Release.Name }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
