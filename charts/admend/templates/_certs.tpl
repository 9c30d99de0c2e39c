{{/* Where certificates and keys come from: one Secret that the certs process keeps, or those of cert-manager beside it. */}}

{{- define "admend.secret" -}}
{{- default (printf "%s-certs" (include "admend.name" .)) .Values.certs.secret -}}
{{- end -}}

{{/* A volume named certs with these files: (dict "root" $ "files" (list "ca.crt" ...)). */}}
{{- define "admend.certsVolume" -}}
{{- $own := include "admend.secret" .root -}}
{{- $name := include "admend.name" .root -}}
{{- $sources := dict -}}
{{- range $file := .files -}}
{{- $secret := $own -}}
{{- $key := $file -}}
{{- if and $.root.Values.certs.certManager.enabled (not (hasPrefix "signing." $file)) -}}
{{- $client := hasPrefix "client." $file -}}
{{- $secret = printf "%s-%s" $name (ternary "client" "tls" $client) -}}
{{- $key = ternary (printf "tls.%s" (trimPrefix "client." $file)) $file $client -}}
{{- end -}}
{{- $_ := set $sources $secret (append (default list (get $sources $secret)) (dict "key" $key "path" $file)) -}}
{{- end -}}
name: certs
projected:
  defaultMode: 0440
  sources:
    {{- range $secret, $items := $sources }}
    - secret:
        name: {{ $secret | quote }}
        items:
          {{- toYaml $items | nindent 10 }}
    {{- end }}
{{- end -}}
