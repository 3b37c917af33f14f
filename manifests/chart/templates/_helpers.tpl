{{/* Labels of an object. Call with (list . "webhook"), or (list . "") for what belongs to no part. */}}
{{- define "sidestep.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/part-of: sidestep
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- with index . 1 }}
app.kubernetes.io/name: sidestep-{{ . }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with $root.Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a part's pods are found by. Call with its name. */}}
{{- define "sidestep.selector" -}}
app.kubernetes.io/name: sidestep-{{ . }}
{{- end }}

{{/* Labels and annotations of ours that a pod may have, as a CEL list. Not by their prefix: a pod may have a hundred thousand
annotations, and who loops over them keeps the API server busy. */}}
{{- define "sidestep.keys" -}}
{{- $words := list "accelerated" "enabled" "left-alone" "netns" "policy" "raw-sockets" "shortcut" "shortcut-into" -}}
['sidestep.dev/{{ join "', 'sidestep.dev/" $words }}']
{{- end }}

{{/* Annotations by which a Prometheus without the operator finds a part's pods. Call with (list . 8080). */}}
{{- define "sidestep.scraped" -}}
{{- if ((index . 0).Values.monitoring).scrapeAnnotations -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* Image of a part, with how it is pulled. Call with (list . "webhook"). */}}
{{- define "sidestep.image" -}}
{{- $image := (index . 0).Values.image -}}
image: {{ printf "%s/%s:%s" $image.registry (index . 1) ($image.tag | default (index . 0).Chart.AppVersion) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{/* Annotations of what the hook before uninstalling runs with: made before its Job, and gone when it has ended. */}}
{{- define "sidestep.uninstallRights" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{/* The same of what `helm test` runs with. */}}
{{- define "sidestep.testRights" -}}
helm.sh/hook: test
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{/* What values.schema.json cannot say in a way that people can read. */}}
{{- define "sidestep.check" -}}
{{- $provided := .Values.certificates.provided -}}
{{- if eq .Values.certificates.mode "provided" }}
  {{- if not $provided.secretName }}
    {{- fail "certificates.provided.secretName is empty: with certificates.mode=provided, name the Secret that holds tls.crt and tls.key" }}
  {{- end }}
  {{- if and $provided.caBundle $provided.certManager }}
    {{- fail "certificates.provided.caBundle and certificates.provided.certManager are both set: give one, the other would be overwritten" }}
  {{- end }}
  {{- if not (or $provided.caBundle $provided.certManager) }}
    {{- fail "certificates.provided.caBundle and certificates.provided.certManager are both empty: give one, the API server has to know whom to trust" }}
  {{- end }}
{{- else if or $provided.secretName $provided.caBundle $provided.certManager }}
  {{- fail "certificates.provided is set but certificates.mode is managed: set certificates.mode=provided, or leave it empty" }}
{{- end }}
{{- $delete := int .Values.waiting.deleteSeconds -}}
{{- if and (gt $delete 0) (lt $delete 30) }}
  {{- fail (printf "waiting.deleteSeconds is %d: want 0 (never) or at least 30, agents need a moment for a new pod" $delete) }}
{{- end }}
{{- end }}
