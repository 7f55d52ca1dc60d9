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

{{/* What the namespace of a tenant says, and whether an object is of the tenant's
     control plane: a template of the tenant's could have the host's controllers
     make a pod that says so. In a virtual cluster's namespace there is no such
     template but the manager's. */}}
{{- define "sublet.namespaceVariables" -}}
- name: said
  expression: "has(namespaceObject.metadata.annotations) ? namespaceObject.metadata.annotations : {}"
- name: posing
  expression: >-
    has(object.metadata.labels) && 'sublet.dev/component' in object.metadata.labels &&
    object.metadata.labels['sublet.dev/component'] in ['control-plane', 'fence'] &&
    !('sublet.dev/tenant-type' in namespaceObject.metadata.labels && namespaceObject.metadata.labels['sublet.dev/tenant-type'] == 'VirtualCluster')
- name: controlPlane
  expression: >-
    has(object.metadata.labels) && 'sublet.dev/component' in object.metadata.labels &&
    object.metadata.labels['sublet.dev/component'] == 'control-plane' && !variables.posing
{{- end }}

{{/* Variables of the policies about names of hosts: those that may be claimed, and
     whether an update claims nothing else than before. */}}
{{- define "sublet.claimVariables" -}}
- name: hosts
  expression: >-
    has(namespaceObject.metadata.annotations) && 'sublet.dev/hosts' in namespaceObject.metadata.annotations
    ? namespaceObject.metadata.annotations['sublet.dev/hosts'].split(',').filter(p, p != '') : []
- name: annotations
  expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"
- name: before
  expression: "oldObject != null && has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"
- name: unchanged
  expression: "oldObject != null && object.spec == oldObject.spec"
{{- end }}

{{/* Whether a name of a host may be claimed; see HostCovers in api/v1alpha1. */}}
{{- define "sublet.hostAllowed" -}}
variables.hosts.exists(p, p == '*' || p == {{ . }} || (p.startsWith('*.') && {{ . }}.endsWith(p.substring(1)) && size({{ . }}) >= size(p)))
{{- end }}

{{/* That names for external-dns may be claimed, or were before. */}}
{{- define "sublet.externalNames" -}}
- expression: >-
    ['external-dns.alpha.kubernetes.io/hostname', 'external-dns.alpha.kubernetes.io/internal-hostname'].all(k,
      !(k in variables.annotations) || (k in variables.before && variables.before[k] == variables.annotations[k]) ||
      variables.annotations[k].split(',').map(h, h.trim()).all(h, {{ include "sublet.hostAllowed" "h" }}))
  messageExpression: >-
    'annotations for external-dns may name the hosts that this tenant may use, and no other: ' +
    (size(variables.hosts) == 0 ? 'none' : variables.hosts.join(', ')) + '; the limits.hosts of the Tenant decide'
  reason: Forbidden
{{- end }}

{{/* What no path needs; see ingressPathBreaks in syncer/kinds. */}}
{{- define "sublet.pathBreaks" -}}
r"""[\s;"'`]"""
{{- end }}
