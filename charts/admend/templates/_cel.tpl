{{/* Expressions in CEL that the API server holds: which pods and which images count. A field that is absent must never
be read: each is behind has(), or behind a test with `in`.

https://kubernetes.io/docs/reference/using-api/cel/ */}}

{{/* The images of one pod as a list of texts; the argument is `object` or `oldObject`. */}}
{{- define "admend.cel.images" -}}
{{- $lists := list -}}
{{- range $field := list "containers" "initContainers" "ephemeralContainers" -}}
{{- $lists = append $lists (printf "(has(%s.spec.%s) ? %s.spec.%s.map(c, has(c.image) ? c.image : \"\") : [])" $ $field $ $field) -}}
{{- end -}}
{{- join " + " $lists -}}
{{- end -}}

{{/* The matchConditions of the webhook and of the policy; the argument is the root. */}}
{{- define "admend.matchConditions" -}}
# A mirror pod shows what a kubelet runs from a file; changing it changes nothing.
- name: not-a-mirror-pod
  expression: '!has(object.metadata.annotations) || !("kubernetes.io/config.mirror" in object.metadata.annotations)'
- name: not-windows
  expression: >-
    !(has(object.spec.os) && object.spec.os.name == "windows") &&
    !(has(object.spec.nodeSelector) && "kubernetes.io/os" in object.spec.nodeSelector &&
    object.spec.nodeSelector["kubernetes.io/os"] == "windows")
{{- with .Values.webhook.skipPriorityClasses }}
- name: not-critical
  expression: {{ printf "!has(object.spec.priorityClassName) || !(object.spec.priorityClassName in %s)" (toJson .) | squote }}
{{- end }}
# Containers never come, go or move by an update, but for ephemeral ones, so the lists can be compared as they are.
- name: an-image-is-new
  expression: >-
    request.operation != "UPDATE" ||
    {{ include "admend.cel.images" "object" }} !=
    {{ include "admend.cel.images" "oldObject" }}
{{- end -}}

{{/* A shell pattern as a regular expression on an image as a pod writes it: on the whole reference, or on its name
alone; (dict "pattern" "docker.io/library/*" "where" "selection.exclude"). */}}
{{- define "admend.cel.pattern" -}}
{{- if contains "[" .pattern -}}
{{- fail (printf "%s: the pattern %s holds a character class, which validatingPolicy cannot express; write ? or *" .where .pattern) -}}
{{- end -}}
{{- $shape := regexQuoteMeta .pattern | replace "\\*" ".*" | replace "\\?" "." -}}
{{- printf "^(?:%s)(?::[A-Za-z0-9_][A-Za-z0-9_.-]*)?(?:@[a-z0-9]+:[a-f0-9]+)?$" $shape | toJson -}}
{{- end -}}

{{/* Whether an image (the variable i) matches one of the patterns: (dict "patterns" (list ...) "where" "..."). */}}
{{- define "admend.cel.matches" -}}
{{- $tests := list -}}
{{- range $pattern := .patterns -}}
{{- $tests = append $tests (printf "i.matches(%s)" (include "admend.cel.pattern" (dict "pattern" $pattern "where" $.where))) -}}
{{- end -}}
{{- join " || " $tests -}}
{{- end -}}

{{/* The images that count, of one pod: without containers that never pull. */}}
{{- define "admend.cel.pulled" -}}
{{- $lists := list -}}
{{- range $field := list "containers" "initContainers" "ephemeralContainers" -}}
{{- $lists = append $lists (printf "(has(object.spec.%s) ? object.spec.%s.filter(c, !has(c.imagePullPolicy) || c.imagePullPolicy != \"Never\").map(c, has(c.image) ? c.image : \"\") : [])" $field $field) -}}
{{- end -}}
{{- join " + " $lists -}}
{{- end -}}

{{/* Whether a pod's controller is one that the webhook rewrites for; the argument is the list of further kinds. */}}
{{- define "admend.cel.ours" -}}
{{- $kinds := list
  "(o.apiVersion.startsWith(\"apps/\") && o.kind in [\"ReplicaSet\", \"StatefulSet\", \"DaemonSet\"])"
  "(o.apiVersion.startsWith(\"batch/\") && o.kind == \"Job\")"
-}}
{{- range $owner := . -}}
{{- $parts := splitn "." 2 $owner -}}
{{- $kind := printf "o.kind == %s" (toJson $parts._0) -}}
{{- if $parts._1 -}}{{- $kind = printf "(%s && o.apiVersion.startsWith(%s))" $kind (printf "%s/" $parts._1 | toJson) -}}{{- end -}}
{{- $kinds = append $kinds $kind -}}
{{- end -}}
{{- join " || " $kinds -}}
{{- end -}}
