{{/*
What runs, worked out once: YAML with "items", a list of maps of
  name      of its resources, after the release's
  labels    by which its pods are told from others
  args      of the container
  grace     seconds until a stopped pod is killed
  image, pullPolicy
  env       EnvVars of its own
  secret    name of another Secret than that of servers
  pod       .Values.pod with what the component sets itself
  replicas, or scaling with lanes and concurrency
  egress    rules of its own
*/}}
{{- define "job-dispatcher.components" -}}
{{- $items := list -}}
{{- range $name, $own := .Values.services -}}
{{- $items = append $items (include "job-dispatcher.service" (list $ $name $own) | fromYaml) -}}
{{- end -}}
{{- range $name, $own := .Values.workers -}}
{{- $items = append $items (include "job-dispatcher.worker" (list $ $name $own) | fromYaml) -}}
{{- end -}}
{{- dict "items" $items | toYaml -}}
{{- end -}}

{{- define "job-dispatcher.service" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $own := index . 2 -}}
name: {{ $name }}
labels:
  app.kubernetes.io/component: {{ $name }}
args: [run, {{ $name }}]
# finishing what was taken: some 10 s for each connection that does not answer
grace: 60
{{- $image := $root.Values.image -}}
{{- if $own.tag -}}
{{- $image = dict "repository" $image.repository "tag" $own.tag -}}
{{- end }}
image: {{ include "job-dispatcher.image" (list $image $root.Chart.AppVersion) | quote }}
pullPolicy: {{ $root.Values.image.pullPolicy }}
replicas: {{ $own.replicas }}
pod:
  {{- mergeOverwrite (deepCopy $root.Values.pod) (omit $own "replicas" "tag") | toYaml | nindent 2 }}
{{- end -}}

{{- define "job-dispatcher.worker" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $own := mergeOverwrite (deepCopy $root.Values.workerDefaults) (index . 2) -}}
{{- $image := $own.image | default $root.Values.image -}}
{{- if and $own.image (not $own.image.tag) (not $own.image.digest) -}}
{{- fail (printf "workers.%s.image: say tag or digest of %s" $name $own.image.repository) -}}
{{- end -}}
{{- range $own.lanes -}}
{{- if not (has . $root.Values.config.lanes) -}}
{{- fail (printf "workers.%s.lanes: lane %q is not declared in config.lanes" $name .) -}}
{{- end -}}
{{- end -}}
{{- if and $own.scaling.enabled (gt (int $own.scaling.min) (int $own.scaling.max)) -}}
{{- fail (printf "workers.%s.scaling: min is larger than max" $name) -}}
{{- end -}}
name: worker-{{ $name }}
labels:
  app.kubernetes.io/component: worker
  job-dispatcher/worker: {{ $name | quote }}
args: [worker, {{ $own.handlers | quote }}]
# then it has another 60 s to give back what it holds, and to tell the broker what became of the rest
grace: {{ add (ceil $own.grace) 60 }}
image: {{ include "job-dispatcher.image" (list $image $root.Chart.AppVersion) | quote }}
pullPolicy: {{ $image.pullPolicy | default $root.Values.image.pullPolicy }}
env:
  - {name: DISPATCHER_WORKER__CONCURRENCY, value: {{ int $own.concurrency | quote }}}
  - {name: DISPATCHER_WORKER__GRACE, value: {{ $own.grace | quote }}}
  - {name: DISPATCHER_WORKER__LANES, value: {{ $own.lanes | toJson | quote }}}
{{- with $own.existingSecret }}
secret: {{ . }}
{{- end }}
replicas: {{ $own.replicas }}
{{- if $own.scaling.enabled }}
scaling:
  {{- toYaml $own.scaling | nindent 2 }}
{{- end }}
lanes: {{ $own.lanes | default $root.Values.config.lanes | toJson }}
concurrency: {{ int $own.concurrency }}
egress: {{ $own.egress | toJson }}
pod:
  {{- $pod := omit $own "handlers" "image" "existingSecret" "replicas" "lanes" "concurrency" "grace" "egress" "scaling" }}
  {{- mergeOverwrite (deepCopy $root.Values.pod) $pod | toYaml | nindent 2 }}
{{- end -}}

{{/* A component's labels by which its pods are selected. Argument: list of the root and the component. */}}
{{- define "job-dispatcher.componentSelector" -}}
{{ include "job-dispatcher.selector" (index . 0) }}
{{ toYaml (index . 1).labels }}
{{- end -}}
