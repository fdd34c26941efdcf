{{- define "thyme.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "thyme.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "thyme.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "thyme.labels" -}}
{{ include "thyme.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.additionalLabels }}
{{ include "thyme.evaluated" (dict "value" . "context" $) }}
{{- end }}
{{- end -}}

{{/* Name, namespace and labels, as all objects have them. */}}
{{- define "thyme.metadata" -}}
name: {{ include "thyme.fullname" . }}
namespace: {{ include "thyme.namespace" . | quote }}
labels:
  {{- include "thyme.labels" . | nindent 2 }}
{{- end -}}

{{- define "thyme.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "thyme.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "thyme.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* A value with its templates evaluated. */}}
{{- define "thyme.evaluated" -}}
{{- tpl (toYaml .value) .context -}}
{{- end -}}

{{/* The Secret with the exporter's files; empty without one. */}}
{{- define "thyme.credentialsName" -}}
{{- if .Values.credentials.existingSecret -}}
{{- .Values.credentials.existingSecret -}}
{{- else if .Values.credentials.files -}}
{{- printf "%s-credentials" (include "thyme.fullname" . | trunc 51 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What the preset adds to the configuration. What the user sets under the same names outranks it. */}}
{{- define "thyme.logsCollection" -}}
{{- $preset := .Values.presets.logsCollection -}}
{{- if $preset.storeCheckpoints }}
extensions:
  file_storage:
    directory: /var/lib/thyme
{{- end }}
receivers:
  filelog:
    include:
      - /var/log/pods/*/*/*.log
    {{- if not $preset.includeCollectorLogs }}
    # What the agent itself says is not its input.
    exclude:
      - /var/log/pods/${env:POD_NAMESPACE}_${env:POD_NAME}_*/*/*.log
    {{- end }}
    start_at: beginning
    include_file_path: true
    include_file_name: false
    {{- if $preset.storeCheckpoints }}
    storage: file_storage
    {{- end }}
    operators:
      - type: container
{{- end -}}

{{/* The agent's configuration: `config`, and what presets add to it. */}}
{{- define "thyme.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range $name, $exporter := .Values.config.exporters -}}
{{- if kindIs "invalid" $exporter -}}
{{- $_ := unset $config.exporters $name -}}
{{- end -}}
{{- end -}}
{{- if .Values.presets.logsCollection.enabled -}}
{{- $config = mustMergeOverwrite (include "thyme.logsCollection" . | fromYaml) $config -}}
{{- $pipeline := $config.service.pipelines.logs -}}
{{- $_ := set $pipeline "receivers" (append ($pipeline.receivers | default list) "filelog" | uniq) -}}
{{- if .Values.presets.logsCollection.storeCheckpoints -}}
{{- $_ := set $config.service "extensions" (append ($config.service.extensions | default list) "file_storage" | uniq) -}}
{{- range $config.exporters -}}
{{- $queue := .sending_queue | default dict -}}
{{- if not (hasKey $queue "storage") -}}
{{- $_ := set . "sending_queue" (set $queue "storage" "file_storage") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "thyme.evaluated" (dict "value" $config "context" .) -}}
{{- end -}}

{{/* What the schema can't say. Every message begins with the value's name. */}}
{{- define "thyme.check" -}}
{{- with .Values.presets.kubernetesAttributes }}
{{- if .enabled }}
{{- fail "presets.kubernetesAttributes.enabled: the agent does not add metadata from the Kubernetes API yet. Namespace, pod, UID, container and restart count come from the file's path, without this preset" }}
{{- end }}
{{- end }}
{{- if and .Values.credentials.existingSecret .Values.credentials.files }}
{{- fail "credentials.existingSecret: excludes credentials.files" }}
{{- end }}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" "checksum/config" }}
{{- range $name := list "podLabels" "podAnnotations" "additionalLabels" }}
{{- range $key, $_ := index $.Values $name }}
{{- if has $key $own }}
{{- fail (printf "%s: %s is the chart's own" $name $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- $exporters := dict }}
{{- range $name, $exporter := .Values.config.exporters }}
{{- if not (kindIs "invalid" $exporter) }}
{{- $_ := set $exporters $name $exporter }}
{{- end }}
{{- end }}
{{- if not $exporters }}
{{- fail "config.exporters: there is none" }}
{{- end }}
{{- range $name, $exporter := $exporters }}
{{- if not (dig "endpoint" "" ($exporter | default dict)) }}
{{- fail (printf "config.exporters.%s.endpoint: not set. Where do the records go? --set config.exporters.%s.endpoint=collector.example:4317, for instance; %s=null removes the exporter" $name $name (printf "config.exporters.%s" $name)) }}
{{- end }}
{{- end }}
{{- range $name := list "podMonitor" "serviceMonitor" }}
{{- with index $.Values $name }}
{{- if and .enabled (not .metricsEndpoints) }}
{{- fail (printf "%s.metricsEndpoints: there is none" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.prometheusRule }}
{{- if and .enabled (not .groups) (not .defaultRules.enabled) }}
{{- fail "prometheusRule.enabled: there is no rule, neither in prometheusRule.groups nor by prometheusRule.defaultRules.enabled" }}
{{- end }}
{{- end }}
{{- end -}}
