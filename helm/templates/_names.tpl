{{/* Names and labels. Selectors have nothing in them that changes with a version: they are immutable. */}}

{{- define "job-dispatcher.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/*
"<fullname>-<suffix>". At most 46 characters: a pod's name has 17 more, and its host name, which begins a worker's id,
would be cut at 63.
Argument: list of the root and the suffix.
*/}}
{{- define "job-dispatcher.name" -}}
{{- $name := printf "%s-%s" (include "job-dispatcher.fullname" (index . 0)) (index . 1) -}}
{{- if gt (len $name) 46 -}}
{{- fail (printf "the name %s is longer than 46 characters: set a shorter fullnameOverride, or name the worker shorter" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "job-dispatcher.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "job-dispatcher.labels" -}}
{{ include "job-dispatcher.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end -}}

{{/* repository:tag or repository@digest. Argument: an image's map, and the tag where it has none. */}}
{{- define "job-dispatcher.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 1)) -}}
{{- end -}}
{{- end -}}

{{- define "job-dispatcher.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "job-dispatcher.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}
