{{/* Values that are each right and do not go together. One line per matter: what, and what to do. */}}
{{- define "admend.checks" -}}
{{- $embedded := include "admend.embedded" . -}}
{{- if and $embedded (or (gt (int .Values.proxy.replicas) 1) .Values.proxy.autoscaling.enabled) -}}
{{- fail "proxy.replicas: an embedded mirror is one volume of one process; set mirror.registry to run more than one" -}}
{{- end -}}
{{- $host := regexReplaceAll "/.*" .Values.mirror.reference "" -}}
{{- $local := regexMatch "^(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]+)?$" $host -}}
{{- if and $local (not $embedded) -}}
{{- fail (printf "mirror.reference: %s is no name of the registry %s; give the one by which nodes know it" $host .Values.mirror.registry) -}}
{{- end -}}
{{- if and $local (or (ne .Values.proxy.service.type "NodePort") (ne (regexFind "[0-9]+$" $host | int) (int .Values.proxy.service.nodePort))) -}}
{{- fail (printf "mirror.reference: nodes reach %s over a node port; set proxy.service.type to NodePort and proxy.service.nodePort to its port, or give another name" $host) -}}
{{- end -}}
{{- if .Values.proxy.ingress.enabled -}}
{{- if not $embedded -}}
{{- fail "proxy.ingress: nodes pull from mirror.registry, the proxy has nothing to serve to them; disable the ingress" -}}
{{- end -}}
{{- if ne .Values.proxy.ingress.host (regexReplaceAll ":[0-9]+$" $host "") -}}
{{- fail (printf "proxy.ingress.host: %s is not the host in mirror.reference, %s; nodes pull from the latter" (default "empty" .Values.proxy.ingress.host) $host) -}}
{{- end -}}
{{- end -}}
{{- if .Values.mirror.grants.enabled -}}
{{- if not $embedded -}}
{{- fail "mirror.grants: an external registry has an access control of its own; give the namespaces' pods credentials for it" -}}
{{- end -}}
{{- if not .Values.pullSecrets.namespaces -}}
{{- fail "mirror.grants: pullSecrets.namespaces says where pull secrets are kept, and is empty" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.webhookEgress) -}}
{{- range $what, $url := dict "audit.http.url" .Values.audit.http.url "tracing.endpoint" .Values.tracing.endpoint -}}
{{- if $url -}}
{{- fail (printf "%s: the network policy lets the webhook reach the proxy and nothing else; add a rule for %s to networkPolicy.webhookEgress" $what $url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $what, $to := dict "audit.http" (list .Values.audit.http.url .Values.audit.http) "tracing" (list .Values.tracing.endpoint .Values.tracing) -}}
{{- $values := last $to -}}
{{- if and $values.existingSecret (has "token" $values.keys) (hasPrefix "http:" (first $to)) -}}
{{- fail (printf "%s.keys: a token goes over TLS only, and %s is no https address" $what (first $to)) -}}
{{- end -}}
{{- end -}}
{{- range $part := list "webhook" "proxy" -}}
{{- $scaling := (index $.Values $part).autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas is more than maxReplicas" $part) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.validatingPolicy.enabled (has "Deny" .Values.validatingPolicy.actions) -}}
{{- if has "Warn" .Values.validatingPolicy.actions -}}
{{- fail "validatingPolicy.actions: the API server takes Deny or Warn, not both: a denial says why already" -}}
{{- end -}}
{{- $enforce := (include "admend.webhookConfig" . | fromYaml).enforce -}}
{{- range $outcome, $does := $enforce -}}
{{- if and (or (eq $does "leave") (eq $does "admit")) -}}
{{- fail (printf "enforce.%s: %s lets images in by tag, which validatingPolicy would deny; use pin or deny, or the actions [Warn] or [Audit]" $outcome $does) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
