{{/*
For the pod template of your own chart, which has this one as a dependency. Each takes your chart's context, or, where the
dependency has an alias, .Subcharts.ALIAS:

    metadata:
      labels:
        {{- include "nearside.podLabels" . | nindent 8 }}
      annotations:
        {{- include "nearside.podAnnotations" . | nindent 8 }}
    spec:
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ include "nearside.terminationGracePeriodSeconds" . }}
      initContainers:
        {{- include "nearside.container" . | nindent 8 }}
      volumes:
        {{- include "nearside.volumes" . | nindent 8 }}

With sidecar.native: false the container belongs among `containers`.
*/}}

{{/* Fails where nearside has another name in this chart, and so is not what was found. */}}
{{- define "nearside.known" -}}
{{- if not (hasKey .Values "daemonset") -}}
{{- fail "this chart has no dependency called nearside; if it has an alias, say .Subcharts.ALIAS in the place of the dot" -}}
{{- end -}}
{{- end -}}

{{/* By these the PodMonitor, the NetworkPolicy and the PodDisruptionBudget find the pod. */}}
{{- define "nearside.podLabels" -}}
nearside-sidecar: {{ .Release.Name }}
{{- end -}}

{{/* A change of the settings replaces the pods. */}}
{{- define "nearside.podAnnotations" -}}
{{- $near := get (.Subcharts | default dict) "nearside" | default . -}}
{{- include "nearside.known" $near -}}
checksum/nearside: {{ include "nearside.config" $near | sha256sum }}
{{- end -}}

{{/* One after the other where it is native, both at once where it is not. */}}
{{- define "nearside.terminationGracePeriodSeconds" -}}
{{- $near := get (.Subcharts | default dict) "nearside" | default . -}}
{{- include "nearside.known" $near -}}
{{- $stop := include "nearside.stopSeconds" $near | int64 -}}
{{- with $near.Values.sidecar -}}
{{ .native | ternary (add .applicationSeconds $stop) (max .applicationSeconds (add .preStopSeconds $stop)) }}
{{- end -}}
{{- end -}}

{{/* An element of initContainers, or of containers. */}}
{{- define "nearside.container" -}}
{{- $near := get (.Subcharts | default dict) "nearside" | default . -}}
{{- include "nearside.known" $near -}}
{{- with $near -}}
- name: nearside
  image: {{ include "nearside.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if and (eq .Values.mode "sidecar") .Values.sidecar.native }}
  restartPolicy: Always
  {{- end }}
  args: ["serve", "--config", "/etc/nearside/nearside.toml"]
  {{- if or .Values.upstream.secret.name .Values.extraEnv }}
  env:
    {{- if .Values.upstream.secret.name }}
    - name: NEARSIDE_UPSTREAM
      valueFrom:
        secretKeyRef:
          name: {{ .Values.upstream.secret.name }}
          key: {{ .Values.upstream.secret.key }}
    {{- end }}
    {{- with .Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    {{- include "nearside.ports" . | nindent 4 }}
  {{- include "nearside.probes" . | nindent 2 }}
  {{- include "nearside.lifecycle" . | nindent 2 }}
  resources:
    {{- .Values.resources | empty | ternary (include "nearside.resources" .) (toYaml .Values.resources) | nindent 4 }}
  securityContext:
    {{- include "nearside.securityContext" . | nindent 4 }}
  volumeMounts:
    {{- include "nearside.volumeMounts" . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* Clients of a sidecar come from the pod itself. */}}
{{- define "nearside.ports" -}}
{{- if and (eq .Values.mode "daemonset") (ne .Values.daemonset.expose "socket") -}}
- name: nearside
  containerPort: {{ .Values.clients.port }}
  {{- if eq .Values.daemonset.expose "hostPort" }}
  hostPort: {{ .Values.clients.port }}
  {{- with .Values.daemonset.hostIP }}
  hostIP: {{ . | quote }}
  {{- end }}
  {{- end }}
{{ end -}}
- name: nearside-admin
  containerPort: {{ .Values.admin.port }}
{{- end -}}

{{/* A native sidecar's application starts when the first of them is content. */}}
{{- define "nearside.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: nearside-admin
  periodSeconds: 1
  failureThreshold: 30
readinessProbe:
  httpGet:
    path: /readyz
    port: nearside-admin
  periodSeconds: 5
livenessProbe:
  httpGet:
    path: /livez
    port: nearside-admin
  periodSeconds: 10
  failureThreshold: 3
{{- end -}}

{{/* A native sidecar is told to end when no client is left, and a Unix socket's clients are told nothing before. */}}
{{- define "nearside.lifecycle" -}}
{{- $seconds := eq .Values.mode "daemonset" | ternary .Values.daemonset.preStopSeconds .Values.sidecar.preStopSeconds -}}
{{- $none := eq .Values.mode "daemonset" | ternary (eq .Values.daemonset.expose "socket") .Values.sidecar.native -}}
{{- if and (not $none) (gt (int $seconds) 0) -}}
lifecycle:
  preStop:
    sleep:
      seconds: {{ $seconds }}
{{- end -}}
{{- end -}}

{{- define "nearside.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Whole folders and never a subPath, which the kubelet does not update. */}}
{{- define "nearside.volumeMounts" -}}
- name: nearside
  mountPath: /etc/nearside
  readOnly: true
{{- if .Values.upstream.passwordSecret.name }}
- name: nearside-upstream
  mountPath: /etc/nearside-upstream
  readOnly: true
{{- end }}
{{- if .Values.upstream.tls.secret }}
- name: nearside-upstream-tls
  mountPath: /etc/nearside-upstream-tls
  readOnly: true
{{- end }}
{{- if .Values.clients.passwordSecret.name }}
- name: nearside-clients
  mountPath: /etc/nearside-clients
  readOnly: true
{{- end }}
{{- if .Values.clients.tls.secret }}
- name: nearside-tls
  mountPath: /etc/nearside-tls
  readOnly: true
{{- end }}
{{- if .Values.admin.tokenSecret.name }}
- name: nearside-admin
  mountPath: /etc/nearside-admin
  readOnly: true
{{- end }}
{{- if and (eq .Values.mode "daemonset") (eq .Values.daemonset.expose "socket") }}
- name: nearside-socket
  mountPath: {{ .Values.daemonset.socket.directory }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Elements of volumes. */}}
{{- define "nearside.volumes" -}}
{{- $near := get (.Subcharts | default dict) "nearside" | default . -}}
{{- include "nearside.known" $near -}}
{{- with $near -}}
- name: nearside
  configMap:
    name: {{ include "nearside.fullname" . }}
{{- with .Values.upstream.passwordSecret }}
{{- if .name }}
- name: nearside-upstream
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: password
{{- end }}
{{- end }}
{{- with .Values.upstream.tls }}
{{- if .secret }}
- name: nearside-upstream-tls
  secret:
    secretName: {{ .secret }}
    items:
      {{- if .ca }}
      - key: {{ .ca }}
        path: ca.crt
      {{- end }}
      {{- if .cert }}
      - key: {{ .cert }}
        path: tls.crt
      - key: {{ required "upstream.tls.key: a certificate needs its key" .key }}
        path: tls.key
      {{- end }}
{{- end }}
{{- end }}
{{- with .Values.clients.passwordSecret }}
{{- if .name }}
- name: nearside-clients
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: password
{{- end }}
{{- end }}
{{- with .Values.clients.tls.secret }}
- name: nearside-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- with .Values.admin.tokenSecret }}
{{- if .name }}
- name: nearside-admin
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- end }}
{{- if and (eq .Values.mode "daemonset") (eq .Values.daemonset.expose "socket") }}
- name: nearside-socket
  hostPath:
    path: {{ .Values.daemonset.socket.directory }}
    type: DirectoryOrCreate
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}
