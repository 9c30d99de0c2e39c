{{/* Names, labels and the image. */}}

{{/* The prefix of every object's name; short enough for the longest ending and for the Pods that come of it. */}}
{{- define "admend.name" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of what has no namespace: two releases of one name in two namespaces must not meet there. */}}
{{- define "admend.clusterName" -}}
{{- if eq .Release.Namespace (include "admend.name" .) -}}
{{- include "admend.name" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "admend.name" .) -}}
{{- end -}}
{{- end -}}

{{/* The labels that selectors use, which must never change; the argument is (dict "root" $ "part" "webhook"). */}}
{{- define "admend.selector" -}}
app.kubernetes.io/name: admend
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "admend.labels" -}}
{{ include "admend.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The same with the operator's own labels, `more`, which change none of them. */}}
{{- define "admend.labelsWith" -}}
{{- toYaml (merge (include "admend.labels" . | fromYaml) (deepCopy (default dict .more))) -}}
{{- end -}}

{{- define "admend.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Host name of a service; the argument is (dict "root" $ "service" "webhook"). */}}
{{- define "admend.host" -}}
{{- printf "%s-%s.%s.svc" (include "admend.name" .root) .service .root.Release.Namespace -}}
{{- end -}}

{{/* Whether the mirror is embedded; empty when it is not. */}}
{{- define "admend.embedded" -}}
{{- if not .Values.mirror.registry -}}true{{- end -}}
{{- end -}}
