{{/* Pieces of the network policies. */}}

{{/* Name service may be a pod, a node's own cache or a service outside: any address. */}}
{{- define "admend.dnsEgress" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* Every address of both families but for the given blocks. */}}
{{- define "admend.anywhere" -}}
{{- $four := list -}}
{{- $six := list -}}
{{- range . -}}
{{- if contains ":" . -}}{{- $six = append $six . -}}{{- else -}}{{- $four = append $four . -}}{{- end -}}
{{- end -}}
- ipBlock:
    cidr: 0.0.0.0/0
    {{- with $four }}
    except:
      {{- toYaml . | nindent 6 }}
    {{- end }}
- ipBlock:
    cidr: "::/0"
    {{- with $six }}
    except:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
