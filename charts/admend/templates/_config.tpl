{{/* The configuration files, as the models in webhook/config.py, proxy/config.py and certs/config.py read them. The
operator's `config` wins over what is written here. */}}

{{- define "admend.webhookConfig" -}}
{{- $url := printf "https://%s:8443" (include "admend.host" (dict "root" . "service" "proxies")) -}}
{{- $selection := dict
  "include" .Values.selection.include
  "exclude" .Values.selection.exclude
  "opt_out" .Values.selection.optOut
  "owners" .Values.selection.owners
  "foreign_owners" .Values.selection.foreignOwners
-}}
{{- $config := dict
  "mode" .Values.mode
  "listen" (dict "host" .Values.listenHost "port" 9443 "tls" (dict "cert_file" "/etc/admend/certs/tls.crt" "key_file" "/etc/admend/certs/tls.key"))
  "proxy" (dict "urls" (list $url) "ca_file" "/etc/admend/certs/ca.crt" "client_cert_file" "/etc/admend/certs/client.crt" "client_key_file" "/etc/admend/certs/client.key")
  "mirror" (dict "reference" .Values.mirror.reference "naming" .Values.mirror.naming)
  "trust" (dict "keys" (list "/etc/admend/certs/signing.pub"))
  "selection" $selection
  "enforce" .Values.enforce
  "pin" .Values.pin
  "pin_also" .Values.pinAlso
  "audit" (include "admend.auditConfig" . | fromYaml)
  "log" .Values.log
-}}
{{- with include "admend.tracingConfig" . | fromYaml -}}{{- $_ := set $config "tracing" . -}}{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.webhook.config)) -}}
{{- end -}}

{{/* A size like 60Gi in bytes. */}}
{{- define "admend.bytes" -}}
{{- $powers := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[MGT]i$" . -}}
{{- mul (trimSuffix $unit . | int64) (get $powers $unit | int64) -}}
{{- end -}}

{{- define "admend.proxyConfig" -}}
{{- $cache := include "admend.bytes" .Values.proxy.cache.sizeLimit | int64 -}}
{{- $mirror := dict "reference" .Values.mirror.reference "naming" .Values.mirror.naming -}}
{{- with .Values.mirror.registry -}}{{- $_ := set $mirror "registry" . -}}{{- end -}}
{{- if include "admend.embedded" . -}}
{{- $_ := set $mirror "max_bytes" (div (mul (include "admend.bytes" .Values.mirror.persistence.size | int64) 5) 6) -}}
{{- end -}}
{{- with .Values.mirror.private -}}{{- $_ := set $mirror "private" . -}}{{- end -}}
{{- if .Values.mirror.grants.enabled -}}
{{- $_ := set $mirror "grants" (dict "enabled" true "seconds" (mulf .Values.mirror.grants.days 86400)) -}}
{{- end -}}
{{- $auth := dict "client_names" (list (printf "%s-webhook" (include "admend.name" .))) "pull" .Values.auth.pull -}}
{{- with .Values.auth.tokenReview.allow -}}
{{- $_ := set $auth "token_review" (dict "audiences" $.Values.auth.tokenReview.audiences "allow" .) -}}
{{- end -}}
{{- if .Values.auth.existingSecret -}}
{{- $_ := set $auth "password_file" "/etc/admend/auth/password" -}}
{{- end -}}
{{- $config := dict
  "listen" (dict "host" .Values.listenHost "port" 8443 "tls" (dict "cert_file" "/etc/admend/certs/tls.crt" "key_file" "/etc/admend/certs/tls.key" "client_ca_file" "/etc/admend/certs/ca.crt"))
  "auth" $auth
  "mirror" $mirror
  "signing_key" "/etc/admend/certs/signing.pem"
  "trusted_keys" (list "/etc/admend/certs/signing.pub")
  "log" .Values.log
  "cache_max_bytes" (div (mul $cache 2) 3)
  "derived_max_bytes" (div (mul $cache 2) 15)
-}}
{{- with include "admend.tracingConfig" . | fromYaml -}}{{- $_ := set $config "tracing" . -}}{{- end -}}
{{- if .Values.registryCredentials.existingSecret -}}
{{- $_ := set $config "upstream" (dict "docker_config" "/etc/admend/registry/config.json" "credential_namespaces" .Values.registryCredentials.namespaces "credentials_open" .Values.registryCredentials.open) -}}
{{- end -}}
{{- if include "admend.evicts" . -}}
{{- $_ := set $config "audit" (include "admend.auditConfig" . | fromYaml) -}}
{{- end -}}
{{- if include "admend.inCluster" . -}}
{{- $_ := set $config "cluster" (include "admend.clusterConfig" . | fromYaml) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.proxy.config)) -}}
{{- end -}}

{{- define "admend.auditConfig" -}}
{{- $audit := dict "stdout" .Values.audit.stdout -}}
{{- if .Values.audit.http.url -}}
{{- $_ := set $audit "http" (merge (dict "url" .Values.audit.http.url) (include "admend.fileKeys" (dict "values" .Values.audit.http "folder" "audit") | fromYaml)) -}}
{{- end -}}
{{- toYaml $audit -}}
{{- end -}}

{{/* Nothing without an endpoint. */}}
{{- define "admend.tracingConfig" -}}
{{- with .Values.tracing -}}
{{- if .endpoint -}}
{{- toYaml (merge (dict "endpoint" .endpoint "sample" .sample "attributes" .attributes) (include "admend.fileKeys" (dict "values" . "folder" "tracing") | fromYaml)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where the files of a Secret with a token and an authority are: (dict "values" .Values.tracing "folder" "tracing"). */}}
{{- define "admend.fileKeys" -}}
{{- $files := dict -}}
{{- if .values.existingSecret -}}
{{- range $key := .values.keys -}}
{{- $_ := set $files (ternary "token_file" "ca_file" (eq $key "token")) (printf "/etc/admend/%s/%s" $.folder $key) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* Whether the proxy asks the API server for anything; empty when it does not. */}}
{{- define "admend.inCluster" -}}
{{- if or .Values.mirror.probe.enabled .Values.auth.tokenReview.allow .Values.pullSecrets.namespaces .Values.fleet.enabled -}}true{{- end -}}
{{- end -}}

{{/* Whether the proxy evicts pods; empty when it does not. */}}
{{- define "admend.evicts" -}}
{{- if and .Values.fleet.enabled .Values.fleet.restart.enabled -}}true{{- end -}}
{{- end -}}

{{- define "admend.clusterConfig" -}}
{{- $name := include "admend.name" . -}}
{{- $cluster := dict
  "namespace" .Release.Namespace
  "lease" (printf "%s-proxy" $name)
  "namespaces" (dict "opt_in" .Values.namespaces.optIn "default_mode" .Values.mode "exclude" (include "admend.excluded" . | fromJsonArray))
-}}
{{- if .Values.mirror.probe.enabled -}}
{{- $_ := set $cluster "probe" (dict "daemonset" (printf "%s-probe" $name) "grace" .Values.mirror.probe.grace) -}}
{{- end -}}
{{- with .Values.fleet -}}
{{- if .enabled -}}
{{- $selection := (include "admend.webhookConfig" $ | fromYaml).selection -}}
{{- $include := .prewarm.include -}}
{{- if and $selection.include (deepEqual $include (list "*")) -}}{{- $include = $selection.include -}}{{- end -}}
{{- $exclude := concat $selection.exclude .prewarm.exclude | uniq -}}
{{- $prewarm := dict "enabled" .prewarm.enabled "concurrency" .prewarm.concurrency "per_minute" .prewarm.perMinute "include" $include "exclude" $exclude -}}
{{- $restart := dict "enabled" .restart.enabled "namespaces" .restart.namespaces "per_minute" .restart.perMinute "cooldown" .restart.cooldown "single_pods" .restart.singlePods "dry_run" .restart.dryRun -}}
{{- $_ := set $cluster "fleet" (dict "every" .every "prewarm" $prewarm "events" .events "restart" $restart) -}}
{{- end -}}
{{- end -}}
{{- with .Values.pullSecrets.namespaces -}}
{{- $_ := set $cluster "pull_secrets" (dict "enabled" true "namespaces" .) -}}
{{- end -}}
{{- toYaml $cluster -}}
{{- end -}}

{{/* Every name under which somebody asks for webhook or proxy. */}}
{{- define "admend.dnsNames" -}}
{{- $names := list -}}
{{- range $service := list "webhook" "proxy" "proxies" -}}
{{- $host := include "admend.host" (dict "root" $ "service" $service) -}}
{{- $names = concat $names (list $host (printf "%s.%s" $host $.Values.clusterDomain)) -}}
{{- end -}}
{{- toJson (concat $names (list "localhost") .Values.certs.extraDnsNames | uniq) -}}
{{- end -}}

{{- define "admend.certsConfig" -}}
{{- $cluster := dict "namespace" .Release.Namespace "secret" (include "admend.secret" .) "lease" (printf "%s-certs" (include "admend.name" .)) -}}
{{- $config := dict "cluster" $cluster "signing" true "check_seconds" .Values.certs.checkSeconds "log" .Values.log -}}
{{- if .Values.certs.certManager.enabled -}}
{{- $_ := set $config "authority" false -}}
{{- else -}}
{{- $_ := set $cluster "webhook_configuration" (include "admend.clusterName" .) -}}
{{- $_ := set $config "dns_names" (include "admend.dnsNames" . | fromJsonArray) -}}
{{- $_ := set $config "ips" .Values.certs.extraIps -}}
{{- $_ := set $config "client" (printf "%s-webhook" (include "admend.name" .)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
