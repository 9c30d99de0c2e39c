{{/* What every pod of this chart has in common. Both levels of security meet the restricted pod security standard. */}}

{{- define "admend.podSecurity" -}}
runAsNonRoot: true
{{- with int .Values.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "admend.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* A pod that ends takes requests until nobody sends it any: for some seconds others still have its address. */}}
{{- define "admend.lastRequests" -}}
lifecycle:
  preStop:
    sleep: {seconds: 5}
{{- end -}}

{{/* Labels and annotations of a pod: (dict "root" $ "part" "webhook" "values" .Values.webhook). Its configuration's
checksum is among them, so that a change of it starts new pods. */}}
{{- define "admend.podMetadata" -}}
labels:
  {{- include "admend.labelsWith" (merge (dict "more" .values.podLabels) .) | nindent 2 }}
annotations:
  {{- with omit (default dict .values.podAnnotations) "admend.dev/config" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  admend.dev/config: {{ include (printf "admend.%sConfig" .part) .root | sha256sum }}
{{- end -}}

{{/* Where a pod may run, and how it is spread: (dict "root" $ "part" "webhook" "values" .Values.webhook). */}}
{{- define "admend.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ ternary (default "ScheduleAnyway" $.values.spread) "ScheduleAnyway" (eq $key "kubernetes.io/hostname") }}
    labelSelector:
      matchLabels:
        {{- include "admend.selector" $ | nindent 8 }}
    # Of one version: during an upgrade the old pods do not count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The folders of Secrets that processes other than certs read, as a list of volumes and one of mounts. Both arguments
are alike: (dict "secrets" (dict "audit" .Values.audit.http)). */}}
{{- define "admend.secretVolumes" -}}
{{- range $folder, $values := .secrets }}
{{- if and $values.existingSecret $values.keys }}
- name: {{ $folder }}
  secret:
    secretName: {{ $values.existingSecret | quote }}
    defaultMode: 0440
    items:
      {{- range $values.keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "admend.secretMounts" -}}
{{- range $folder, $values := .secrets }}
{{- if and $values.existingSecret $values.keys }}
- {name: {{ $folder }}, mountPath: /etc/admend/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget and a HorizontalPodAutoscaler of one part; `count` is how many replicas there are. */}}
{{- define "admend.availability" -}}
{{- $count := ternary (int .values.autoscaling.minReplicas) (int .values.replicas) .values.autoscaling.enabled -}}
{{- if and .values.podDisruptionBudget.enabled (gt $count 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "admend.name" .root }}-{{ .part }}
  labels:
    {{- include "admend.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready holds no drain up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "admend.selector" . | nindent 6 }}
{{- end }}
{{- if .values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "admend.name" .root }}-{{ .part }}
  labels:
    {{- include "admend.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "admend.name" .root }}-{{ .part }}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .values.autoscaling.targetCPUUtilizationPercentage }}
{{- end }}
{{- end -}}
