{{/* Labels of everything in the chart. Names are fixed: a cluster has one
     Sublet, and the manager, its policies and the command line know them. */}}
{{- define "sublet.labels" -}}
app.kubernetes.io/name: sublet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sublet
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "sublet.selector" -}}
app.kubernetes.io/name: sublet
app.kubernetes.io/component: manager
{{- end }}

{{- define "sublet.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The manager's user name. */}}
{{- define "sublet.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:sublet-manager
{{- end }}
