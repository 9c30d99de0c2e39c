{{/* Which namespaces are in which mode, by the label admend.dev/admission. */}}

{{/* Names of namespaces that are never looked at, as JSON. */}}
{{- define "admend.excluded" -}}
{{- $names := concat (list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace) .Values.namespaces.exclude .Values.namespaces.platform -}}
{{- if .Values.certs.certManager.enabled -}}
{{- $names = append $names .Values.certs.certManager.namespace -}}
{{- end -}}
{{- toJson (uniq $names) -}}
{{- end -}}

{{/* The namespaces of one mode: (dict "root" $ "mode" "enforce"). Of the mode that is the default, those are part that
carry `enabled`; without opt-in, those that carry no label, or a word that is none, as well. */}}
{{- define "admend.namespaceSelector" -}}
{{- $default := eq .mode .root.Values.mode -}}
{{- $label := dict "key" "admend.dev/admission" "operator" "In" "values" (list .mode) -}}
{{- if and $default .root.Values.namespaces.optIn -}}
{{- $label = dict "key" "admend.dev/admission" "operator" "In" "values" (list "enabled" .mode) -}}
{{- else if $default -}}
{{- $label = dict "key" "admend.dev/admission" "operator" "NotIn" "values" (without (list "permissive" "enforce" "audit" "disabled") .mode) -}}
{{- end -}}
{{- $never := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (include "admend.excluded" .root | fromJsonArray) -}}
matchExpressions:
  {{- toYaml (list $label $never) | nindent 2 }}
{{- end -}}

{{/* The rules of both the webhook and the policy. */}}
{{- define "admend.podRules" -}}
- apiGroups: [""]
  apiVersions: [v1]
  operations: [CREATE, UPDATE]
  resources: [pods]
  scope: Namespaced
- apiGroups: [""]
  apiVersions: [v1]
  operations: [UPDATE]
  resources: [pods/ephemeralcontainers]
  scope: Namespaced
{{- end -}}
