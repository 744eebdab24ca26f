{{/* What values.schema.json cannot say, or not in a sentence that helps. */}}
{{- define "job-dispatcher.check" -}}
{{- $values := .Values -}}
{{- if not $values.image.repository -}}
{{- fail "image.repository: say where your registry has the image of Job Dispatcher" -}}
{{- end -}}
{{- if $values.bundled.enabled -}}
{{- if $values.servers.existingSecret -}}
{{- fail "servers.existingSecret and bundled.enabled: choose one" -}}
{{- end -}}
{{- if not $values.bundled.existingSecret -}}
{{- fail "bundled.existingSecret: name a Secret with the key password, for RabbitMQ" -}}
{{- end -}}
{{- else if not $values.servers.existingSecret -}}
{{- fail "servers.existingSecret: name a Secret with the addresses of RabbitMQ and MongoDB (for a trial: bundled.enabled)" -}}
{{- end -}}
{{- if not (has "default" $values.config.lanes) -}}
{{- fail "config.lanes: the lane default must be among them" -}}
{{- end -}}
{{- include "job-dispatcher.checkElsewhere" $values.config -}}
{{- if and $values.keda.enabled (or (not (include "job-dispatcher.kedaKey" .)) (not (include "job-dispatcher.kedaSecret" .))) -}}
{{- fail "keda.enabled: name the Secret and the key with the management API's address: servers.managementKey, or keda.existingSecret and keda.key" -}}
{{- end -}}
{{- end -}}

{{/* Settings that are not set in config. */}}
{{- define "job-dispatcher.checkElsewhere" -}}
{{- $elsewhere := dict
    "amqp.url" "the Secret servers.existingSecret has the addresses"
    "amqp.management_url" "the Secret servers.existingSecret has the addresses (servers.managementKey)"
    "mongo.url" "the Secret servers.existingSecret has the addresses"
    "http.host" "the chart sets it" "http.port" "the chart sets it"
    "worker.lanes" "say it in workers.NAME.lanes"
    "worker.concurrency" "say it in workers.NAME.concurrency"
    "worker.grace" "say it in workers.NAME.grace" -}}
{{- range $section, $keys := . -}}
{{- if kindIs "map" $keys -}}
{{- range $key, $_ := $keys -}}
{{- with get $elsewhere (printf "%s.%s" $section $key) -}}
{{- fail (printf "config.%s.%s is not set here: %s" $section $key .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "job-dispatcher.kedaSecret" -}}
{{- .Values.keda.existingSecret | default .Values.servers.existingSecret -}}
{{- end -}}

{{- define "job-dispatcher.kedaKey" -}}
{{- .Values.keda.key | default .Values.servers.managementKey -}}
{{- end -}}
