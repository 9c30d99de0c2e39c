{{/* A role and its binding to the service account of one part, with nothing when there are no rules:
(dict "root" $ "part" "proxy" "name" "..." "namespace" "..." "rules" (list ...)). Without a namespace both are the
cluster's. */}}
{{- define "admend.role" -}}
{{- if .rules }}
{{- range $kind := list "Role" "RoleBinding" }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if not $.namespace }}Cluster{{ end }}{{ $kind }}
metadata:
  name: {{ $.name }}
  {{- with $.namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "admend.labels" $ | nindent 4 }}
{{- if eq $kind "Role" }}
rules:
  {{- toYaml $.rules | nindent 2 }}
{{- else }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ if not $.namespace }}Cluster{{ end }}Role
  name: {{ $.name }}
subjects:
  - kind: ServiceAccount
    name: {{ include "admend.name" $.root }}-{{ $.part }}
    namespace: {{ $.root.Release.Namespace }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* One rule: (list GROUP RESOURCE VERBS NAMES), NAMES may be empty. As JSON, since a template returns text. */}}
{{- define "admend.rule" -}}
{{- $rule := dict "apiGroups" (list (index . 0)) "resources" (list (index . 1)) "verbs" (index . 2) -}}
{{- with index . 3 -}}{{- $_ := set $rule "resourceNames" . -}}{{- end -}}
{{- toJson $rule -}}
{{- end -}}
