{{- define "stepward.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stepward.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stepward.labels" -}}
{{ include "stepward.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "stepward.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "stepward.name" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "stepward.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* The kind of ledger that the configuration names; bolt where it names none, as Stepward does. */}}
{{- define "stepward.ledger" -}}
{{ regexFind "^[a-z+]+" (default "bolt:///var/lib/stepward/ledger.db" .Values.config.ledger) }}
{{- end }}

{{/* Whether pods may stand beside each other: not if each would remember spent tokens for itself. */}}
{{- define "stepward.alone" -}}
{{- $kind := include "stepward.ledger" . -}}
{{- if or (eq $kind "bolt") (eq $kind "memory") }}yes{{ end }}
{{- end }}

{{- define "stepward.check" -}}
{{- $kind := include "stepward.ledger" . -}}
{{- if and (gt (int .Values.replicas) 1) (include "stepward.alone" .) }}
{{- fail (printf "replicas: %d pods with a %s: ledger would each accept a single-use token once: write a shared one in config.ledger, such as redis://redis:6379/0, or replicas: 1" (int .Values.replicas) $kind) }}
{{- end }}
{{- if and (eq $kind "bolt") (ne (default "bolt:///var/lib/stepward/ledger.db" .Values.config.ledger | dir) "bolt:/var/lib/stepward") }}
{{- fail "config.ledger: a bolt: file outside /var/lib/stepward is lost with its pod: write bolt:///var/lib/stepward/ledger.db, or leave it out" }}
{{- end }}
{{- range $key := list "listen" "admin" }}
{{- if hasKey $.Values.config $key }}{{ fail (printf "config.%s: the chart writes it: use doors and adminPort" $key) }}{{ end }}
{{- end }}
{{- range $key := list "ext_authz" "forward_auth" }}
{{- if hasKey (default dict (get $.Values.config $key)) "listen" }}{{ fail (printf "config.%s.listen: the chart writes it: use doors" $key) }}{{ end }}
{{- end }}
{{- if hasKey (default dict .Values.config.policy) "path" }}{{ fail "config.policy.path: the chart writes it: put the files into policy" }}{{ end }}
{{- if not .Values.config.session }}{{ fail "config.session: is missing: say who issues the session tokens (docs/configuration.md)" }}{{ end }}
{{- if and .Values.doors.proxy.enabled (not .Values.config.upstream) }}
{{- fail "config.upstream: is missing: write the backend's address, or switch the door off: doors.proxy.enabled: false" }}{{ end }}
{{- if and .Values.doors.forwardAuth.enabled (not .Values.config.trusted_proxies) }}
{{- fail "config.trusted_proxies: names nobody who may ask at forward_auth: write the proxy's networks, such as [10.0.0.0/8]" }}{{ end }}
{{- if not (or .Values.doors.proxy.enabled .Values.doors.extAuthz.enabled .Values.doors.forwardAuth.enabled) }}
{{- fail "doors: all are closed: enable one" }}{{ end }}
{{- end }}

{{/* The file, with the addresses that the doors say. Container networks need them beyond loopback. */}}
{{- define "stepward.config" -}}
{{- $c := deepCopy .Values.config }}
{{- if .Values.doors.proxy.enabled }}{{ $_ := set $c "listen" (printf "0.0.0.0:%d" (int .Values.doors.proxy.port)) }}
{{- else }}{{ $_ := unset $c "upstream" }}{{ end }}
{{- $_ := set $c "admin" (dict "listen" (printf "0.0.0.0:%d" (int .Values.adminPort))) }}
{{- if .Values.doors.extAuthz.enabled }}
{{- $_ := set $c "ext_authz" (merge (dict "listen" (printf "0.0.0.0:%d" (int .Values.doors.extAuthz.port))) (default dict $c.ext_authz)) }}{{ end }}
{{- if .Values.doors.forwardAuth.enabled }}
{{- $_ := set $c "forward_auth" (merge (dict "listen" (printf "0.0.0.0:%d" (int .Values.doors.forwardAuth.port))) (default dict $c.forward_auth)) }}{{ end }}
{{- if .Values.policy }}{{ $_ := set $c "policy" (merge (dict "path" "/etc/stepward/policy") (default dict $c.policy)) }}{{ end }}
{{- if eq (include "stepward.ledger" .) "bolt" }}{{ $_ := set $c "ledger" "bolt:///var/lib/stepward/ledger.db" }}{{ end }}
{{- toYaml $c }}
{{- end }}
