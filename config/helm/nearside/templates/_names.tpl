{{/*
Names, labels, and figures that follow from settings. Each of them takes the context of this chart.
*/}}

{{- define "nearside.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains "nearside" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-nearside" (.Release.Name | trunc 54 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "nearside.labels" -}}
{{ include "nearside.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "nearside.selectorLabels" -}}
app.kubernetes.io/name: nearside
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods in which nearside runs. */}}
{{- define "nearside.matchLabels" -}}
{{- if eq .Values.mode "daemonset" -}}
{{ include "nearside.selectorLabels" . }}
{{- else if .Values.sidecar.selector -}}
{{ toYaml .Values.sidecar.selector }}
{{- else -}}
{{ include "nearside.podLabels" . }}
{{- end -}}
{{- end -}}

{{- define "nearside.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "nearside.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "nearside.image" -}}
{{- if .Values.image.digest -}}
{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{/* A size of nearside's as whole mebibytes, rounded up. */}}
{{- define "nearside.mebibytes" -}}
{{- $text := (kindIs "float64" . | ternary (int64 (kindIs "float64" . | ternary . 0)) .) | toString | lower | nospace -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text | trimSuffix "b" -}}
{{- $units := dict "" 1 "k" 1000 "m" 1000000 "g" 1000000000 "ki" 1024 "mi" 1048576 "gi" 1073741824 -}}
{{- if and (hasSuffix "b" $text) (has $unit (list "k" "m" "g")) -}}
{{- $unit = printf "%si" $unit -}}
{{- end -}}
{{- if or (eq $number "") (not (hasKey $units $unit)) -}}
{{- fail (printf "%q is not a size: write bytes, or a number with kb, mb or gb, such as 64mb" $text) -}}
{{- end -}}
{{ divf (mulf (float64 $number) (get $units $unit)) 1048576 | ceil | int64 }}
{{- end -}}

{{/* A time of nearside's as whole seconds, rounded up. */}}
{{- define "nearside.seconds" -}}
{{- $text := toString . | nospace -}}
{{- $units := dict "ms" 0.001 "s" 1 "sec" 1 "m" 60 "min" 60 "h" 3600 -}}
{{- $sum := 0.0 -}}
{{- $read := "" -}}
{{- range regexFindAll "[0-9]+[a-z]+" $text -1 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $unit := trimPrefix $number . -}}
{{- if hasKey $units $unit -}}
{{- $sum = addf $sum (mulf (float64 $number) (get $units $unit)) -}}
{{- $read = print $read . -}}
{{- end -}}
{{- end -}}
{{- if and (ne $read $text) (ne $text "0") -}}
{{- fail (printf "%q is not a time: write a number with ms, s, m or h, such as 10s" $text) -}}
{{- end -}}
{{ ceil $sum | int64 }}
{{- end -}}

{{/* The cache, and some room for fragmentation; a few large requests and replies at a time; the program itself. */}}
{{- define "nearside.resources" -}}
{{- $cache := include "nearside.mebibytes" (dig "max-memory" "64mb" .Values.settings) | int64 -}}
{{- $request := include "nearside.mebibytes" (dig "max-request" "1gb" .Values.settings) | int64 -}}
{{- $replies := include "nearside.mebibytes" (dig "client-output-limit" "64mb" .Values.settings) | int64 -}}
requests:
  cpu: 50m
  memory: {{ add $cache 32 }}Mi
limits:
  memory: {{ add $cache (divf $cache 4 | ceil | int64) (mul 2 $request) (mul 4 $replies) 48 }}Mi
{{- end -}}

{{/* How long nearside itself takes to end, with a second or so to spare. */}}
{{- define "nearside.stopSeconds" -}}
{{ include "nearside.seconds" (dig "drain-timeout" "10s" .Values.settings) | int64 | add 5 }}
{{- end -}}
