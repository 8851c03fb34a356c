{{/*
The file of settings. What the chart itself decides on stands first, and is refused among the settings by the schema.
*/}}

{{- define "nearside.toml" -}}
{{- if kindIs "slice" . -}}
[{{ range $at, $one := . }}{{ if $at }}, {{ end }}{{ include "nearside.toml" $one }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{ eq (float64 (int64 .)) . | ternary (int64 .) . }}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "nearside.listen" -}}
{{- if and (eq .Values.mode "daemonset") (eq .Values.daemonset.expose "socket") -}}
unix:{{ .Values.daemonset.socket.directory }}/nearside.sock
{{- else -}}
{{- $address := eq .Values.mode "daemonset" | ternary .Values.admin.address "127.0.0.1" -}}
{{ .Values.clients.tls.secret | empty | ternary "" "tls://" }}{{ $address }}:{{ int .Values.clients.port }}
{{- end -}}
{{- end -}}

{{- define "nearside.config" -}}
{{- with .Values.upstream -}}
upstream = {{ toJson .url }}
{{- if .passwordSecret.name }}
upstream-password-file = "/etc/nearside-upstream/password"
{{- end }}
{{- if .tls.secret }}
{{- if .tls.ca }}
upstream-tls-ca = "/etc/nearside-upstream-tls/ca.crt"
{{- end }}
{{- if .tls.cert }}
upstream-tls-cert = "/etc/nearside-upstream-tls/tls.crt"
upstream-tls-key = "/etc/nearside-upstream-tls/tls.key"
{{- end }}
{{- end }}
{{- end }}
listen = [{{ include "nearside.listen" . | toJson }}]
{{- if .Values.clients.passwordSecret.name }}
auth = "password"
password-file = "/etc/nearside-clients/password"
{{- end }}
{{- if .Values.clients.tls.secret }}
tls-cert = "/etc/nearside-tls/tls.crt"
tls-key = "/etc/nearside-tls/tls.key"
{{- end }}
{{- if and (eq .Values.mode "daemonset") (eq .Values.daemonset.expose "socket") }}
unix-socket-mode = {{ toJson .Values.daemonset.socket.mode }}
{{- end }}
admin = {{ printf "%s:%d" .Values.admin.address (int .Values.admin.port) | toJson }}
{{- if .Values.admin.tokenSecret.name }}
admin-token-file = "/etc/nearside-admin/token"
admin-token-for = "pages"
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }} = {{ include "nearside.toml" $value }}
{{- end }}
{{- end }}
{{- range $namespace, $rules := .Values.namespaces }}
{{- if not (kindIs "invalid" $rules) }}

[namespace.{{ toJson $namespace }}]
{{- range $name, $value := $rules }}
{{ $name }} = {{ include "nearside.toml" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
