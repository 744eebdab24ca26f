{{/*
The pod of a service, of a worker, of the topology Job or of the test. All are within the Pod Security Standard
"restricted". Argument: list of the root, and a component's map (see _components.tpl); a "task" has no probes and ends
by itself, "secret" names another Secret than that of servers, "config" another ConfigMap.
*/}}
{{- define "job-dispatcher.pod" -}}
{{- $root := index . 0 -}}{{- $own := index . 1 -}}{{- $pod := $own.pod -}}
# A Service's variables would be taken for settings: one named "dispatcher" gives DISPATCHER_PORT to every pod.
enableServiceLinks: false
automountServiceAccountToken: false
{{- with $own.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $pod.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
terminationGracePeriodSeconds: {{ int64 $own.grace }}
{{- if $own.task }}
restartPolicy: Never
{{- end }}
{{- with $pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not $own.task }}
{{- with $pod.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ int (.maxSkew | default 1) }}
    whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
    labelSelector:
      matchLabels:
        {{- include "job-dispatcher.componentSelector" (list $root $own) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}
containers:
  - name: dispatcher
    image: {{ $own.image | quote }}
    imagePullPolicy: {{ $own.pullPolicy }}
    args: {{ toJson $own.args }}
    env:
      {{- include "job-dispatcher.env" (list $root $own) | nindent 6 }}
    {{- with $pod.envFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if not $own.task }}
    ports:
      - {name: http, containerPort: 8080}
    # a minute to start
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 30
    # a minute without an answer: a handler that blocks the loop for some seconds is not killed for it
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    # broker, database and consumers: a roll-out waits for it
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 2
    {{- end }}
    resources:
      {{- toYaml $pod.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: config, mountPath: /etc/job-dispatcher, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- with $pod.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ $own.config | default (include "job-dispatcher.fullname" $root) }}
  - name: tmp
    emptyDir: {sizeLimit: {{ $pod.tmpSize }}}
  {{- with $pod.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Every variable that the chart sets, then the component's own. The same name twice would be refused by the API server. */}}
{{- define "job-dispatcher.env" -}}
{{- $root := index . 0 -}}{{- $own := index . 1 -}}
{{- $env := include "job-dispatcher.servers" (list $root $own) | fromYamlArray -}}
{{- $env = append $env (dict "name" "DISPATCHER_CONFIG" "value" "/etc/job-dispatcher/config.yaml") -}}
{{- $env = append $env (dict "name" "DISPATCHER_HTTP__HOST" "value" "0.0.0.0") -}}
{{- $env = append $env (dict "name" "DISPATCHER_HTTP__PORT" "value" "8080") -}}
{{- $env = concat $env ($own.env | default list) -}}
{{- $names := list -}}
{{- range $env -}}{{- $names = append $names .name -}}{{- end -}}
{{- range $own.pod.env -}}
{{- if has .name $names -}}
{{- fail (printf "%s: the variable %s is set by the chart; set it with its value instead" $own.name .name) -}}
{{- end -}}
{{- end -}}
{{- concat $env $own.pod.env | toYaml -}}
{{- end -}}

{{/* The servers' addresses, as EnvVars. */}}
{{- define "job-dispatcher.servers" -}}
{{- $root := index . 0 -}}{{- $own := index . 1 -}}{{- $servers := $root.Values.servers -}}
{{- if $root.Values.bundled.enabled -}}
{{- $rabbitmq := include "job-dispatcher.name" (list $root "rabbitmq") -}}
{{- $mongodb := include "job-dispatcher.name" (list $root "mongodb") -}}
- name: BUNDLED_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $root.Values.bundled.existingSecret }}, key: password}}
- name: DISPATCHER_AMQP__URL
  value: amqp://dispatcher:$(BUNDLED_PASSWORD)@{{ $rabbitmq }}:5672
- name: DISPATCHER_MONGO__URL
  value: mongodb://{{ $mongodb }}-0.{{ $mongodb }}:27017/?replicaSet=rs0
{{- if $own.management }}
- name: DISPATCHER_AMQP__MANAGEMENT_URL
  value: http://{{ $rabbitmq }}:15672
{{- end }}
{{- else -}}
{{- $secret := $own.secret | default $servers.existingSecret -}}
- name: DISPATCHER_AMQP__URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $servers.amqpKey }}}}
- name: DISPATCHER_MONGO__URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $servers.mongoKey }}}}
{{- if and $own.management $servers.managementKey }}
- name: DISPATCHER_AMQP__MANAGEMENT_URL
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $servers.managementKey }}}}
{{- end }}
{{- end -}}
{{- end -}}
