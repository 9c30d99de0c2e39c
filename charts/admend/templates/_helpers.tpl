{{/* The prefix of every object's name. */}}
{{- define "admend.name" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that selectors use; the argument is (dict "root" $ "part" "webhook"). */}}
{{- define "admend.selector" -}}
app.kubernetes.io/name: admend
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "admend.labels" -}}
{{ include "admend.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "admend.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "admend.secret" -}}
{{- default (printf "%s-certs" (include "admend.name" .)) .Values.certs.secret -}}
{{- end -}}

{{/* What every pod of this chart has in common; both levels meet the restricted pod security standard. */}}
{{- define "admend.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "admend.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Host names of a service; the argument is (dict "root" $ "part" "webhook"). */}}
{{- define "admend.host" -}}
{{- printf "%s-%s.%s.svc" (include "admend.name" .root) .part .root.Release.Namespace -}}
{{- end -}}

{{/* The configuration files. The operator's `config` wins over what the chart writes. */}}
{{- define "admend.webhookConfig" -}}
{{- $url := printf "https://%s:8443" (include "admend.host" (dict "root" . "part" "proxy")) -}}
{{- $config := dict
  "mode" .Values.mode
  "listen" (dict "host" .Values.listenHost "port" 9443 "tls" (dict "cert_file" "/etc/admend/certs/tls.crt" "key_file" "/etc/admend/certs/tls.key"))
  "proxy" (dict "urls" (list $url) "ca_file" "/etc/admend/certs/ca.crt" "client_cert_file" "/etc/admend/certs/client.crt" "client_key_file" "/etc/admend/certs/client.key")
  "mirror" (dict "reference" .Values.mirror.reference "naming" .Values.mirror.naming)
  "trust" (dict "keys" (list "/etc/admend/certs/signing.pub"))
-}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.webhook.config)) -}}
{{- end -}}

{{- define "admend.proxyConfig" -}}
{{- $mirror := dict "reference" .Values.mirror.reference "naming" .Values.mirror.naming -}}
{{- if .Values.mirror.registry -}}{{- $_ := set $mirror "registry" .Values.mirror.registry -}}{{- end -}}
{{- $config := dict
  "listen" (dict "host" .Values.listenHost "port" 8443 "tls" (dict "cert_file" "/etc/admend/certs/tls.crt" "key_file" "/etc/admend/certs/tls.key" "client_ca_file" "/etc/admend/certs/ca.crt"))
  "mirror" $mirror
  "signing_key" "/etc/admend/certs/signing.pem"
-}}
{{- if .Values.registryCredentials.existingSecret -}}
{{- $_ := set $config "upstream" (dict "docker_config" "/etc/admend/registry/config.json") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.proxy.config)) -}}
{{- end -}}

{{- define "admend.certsConfig" -}}
{{- $names := list -}}
{{- range $part := list "webhook" "proxy" -}}
{{- $host := include "admend.host" (dict "root" $ "part" $part) -}}
{{- $names = concat $names (list $host (printf "%s.cluster.local" $host)) -}}
{{- end -}}
{{- $config := dict
  "cluster" (dict "namespace" .Release.Namespace "secret" (include "admend.secret" .) "webhook_configuration" (include "admend.name" .))
  "dns_names" (concat $names (list "localhost") .Values.certs.extraDnsNames | uniq)
  "ips" .Values.certs.extraIps
  "client" (printf "%s-webhook" (include "admend.name" .))
  "signing" true
  "check_seconds" .Values.certs.checkSeconds
-}}
{{- toYaml $config -}}
{{- end -}}
