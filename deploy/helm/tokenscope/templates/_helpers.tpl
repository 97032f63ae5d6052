{{- define "tokenscope.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 52 characters leave room for what is put behind it. */}}
{{- define "tokenscope.fullname" -}}
{{- $name := include "tokenscope.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tokenscope.selector" -}}
app.kubernetes.io/name: {{ include "tokenscope.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tokenscope.labels" -}}
{{ include "tokenscope.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tokenscope.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "tokenscope.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tokenscope.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tokenscope.priorityClass" -}}
{{- if .Values.priorityClass.create }}
{{- default (include "tokenscope.fullname" .) .Values.priorityClass.name }}
{{- else }}
{{- .Values.priorityClass.name }}
{{- end }}
{{- end }}

{{- /* Address and port; that of IPv6 in brackets. */}}
{{- define "tokenscope.listen" -}}
{{- $address := .Values.metrics.address }}
{{- if contains ":" $address }}{{ $address = printf "[%s]" $address }}{{ end }}
{{- printf "%s:%d" $address (int .Values.metrics.port) }}
{{- end }}

{{- /* What the user wants, and what must be as it is in a pod. */}}
{{- define "tokenscope.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if hasKey (default dict $config.metrics) "listen" }}
{{- fail "config.metrics.listen: set metrics.address and metrics.port instead, so that the probes find it" }}
{{- end }}
{{- if hasKey (default dict $config.state) "dir" }}
{{- fail "config.state.dir: set state.enabled and state.hostPath instead, so that there is a volume behind it" }}
{{- end }}
{{- if hasKey (default dict $config.control) "socket" }}
{{- fail "config.control.socket: it is /run/tokenscope/control.sock in a pod, where `kubectl exec` finds it" }}
{{- end }}
{{- if hasKey $config "rules_dir" }}
{{- fail "config.rules_dir: put the rules into the value `rules`, which becomes /etc/tokenscope/rules.d" }}
{{- end }}
{{- $state := ternary "/var/lib/tokenscope" "off" .Values.state.enabled }}
{{- $own := dict "metrics" (dict "listen" (include "tokenscope.listen" .)) "state" (dict "dir" $state) }}
{{- toYaml (mergeOverwrite $config $own) }}
{{- end }}

{{- /* The part of the configuration that is read at the start only: a change of it restarts the pods. */}}
{{- define "tokenscope.fixed" -}}
{{- omit (include "tokenscope.config" . | fromYaml) "issuers" "tokens" "revocation" "routes" "lists" "geo" "rules" "time_zone" "sinks" | toYaml }}
{{- end }}

{{- define "tokenscope.capabilities" -}}
{{- $add := list "BPF" "PERFMON" "NET_ADMIN" }}
{{- if .Values.processes.enabled }}{{ $add = concat $add (list "SYS_PTRACE" "DAC_READ_SEARCH") }}{{ end }}
{{- if .Values.legacyKernel.enabled }}{{ $add = append $add "SYS_RESOURCE" }}{{ end }}
{{- concat $add .Values.extraCapabilities | uniq | toYaml }}
{{- end }}

{{- /* The profile that is asked for; none where the runtime's own shall hold. */}}
{{- define "tokenscope.appArmor" -}}
{{- if .Values.appArmorProfile }}
{{- toYaml .Values.appArmorProfile }}
{{- else if .Values.processes.enabled -}}
type: Unconfined
{{- end }}
{{- end }}

{{- /* Root without root's powers. Root it is because the kernel's files and the node's directories are root's. */}}
{{- define "tokenscope.securityContext" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add:
    {{- include "tokenscope.capabilities" . | nindent 4 }}
seccompProfile:
  {{- toYaml .Values.seccompProfile | nindent 2 }}
{{- $profile := include "tokenscope.appArmor" . }}
{{- if and $profile (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) }}
appArmorProfile:
  {{- $profile | nindent 2 }}
{{- end }}
{{- with .Values.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Before 1.30 the profile was named by an annotation. */}}
{{- define "tokenscope.appArmorAnnotation" -}}
{{- $profile := include "tokenscope.appArmor" . | fromYaml }}
{{- if and $profile (semverCompare "<1.30-0" .Capabilities.KubeVersion.Version) }}
{{- $name := "runtime/default" }}
{{- if eq $profile.type "Unconfined" }}{{ $name = "unconfined" }}{{ end }}
{{- if eq $profile.type "Localhost" }}{{ $name = printf "localhost/%s" $profile.localhostProfile }}{{ end -}}
container.apparmor.security.beta.kubernetes.io/tokenscope: {{ $name }}
{{- end }}
{{- end }}
