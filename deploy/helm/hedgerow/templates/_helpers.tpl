{{/* The parts of a mode. */}}
{{- define "hedgerow.parts" -}}
{{- $parts := dict "forwarder" (list "forwarder") "fleet" (list "ls" "ts") "node-local" (list "node-local") -}}
{{- if not (hasKey $parts .Values.mode) }}{{ fail (printf "mode %q is not forwarder, fleet or node-local" .Values.mode) }}{{ end -}}
{{- get $parts .Values.mode | toJson -}}
{{- end }}

{{/* The name of a part's objects. Arguments: the root, the part. */}}
{{- define "hedgerow.name" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
{{- if eq $part "forwarder" }}{{ $root.Release.Name }}{{ else }}{{ $root.Release.Name }}-{{ $part }}{{ end -}}
{{- end }}

{{/* The labels of a part, which select its pods, too. */}}
{{- define "hedgerow.labels" -}}
app.kubernetes.io/name: hedgerow
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The config of a part. The forwarders of a fleet ask for the service of its authorities in this namespace. */}}
{{- define "hedgerow.config" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}
{{- $service := printf "%s.%s" (include "hedgerow.name" (list $root "ts")) $root.Release.Namespace -}}
{{- $file := $root.Files.Get (printf "files/%s.toml" $part) | replace "hedgerow-ts.default" $service -}}
{{- $file = $file | replace "10.96.0.11" $root.Values.nodeLocal.upstreamClusterIP | replace "kube-system" $root.Release.Namespace -}}
{{- get $root.Values.config $part | default $file -}}
{{- end }}
