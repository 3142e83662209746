{{- define "gpu-gate.labels" -}}
app.kubernetes.io/name: gpu-gate
app.kubernetes.io/part-of: gpu-gate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "gpu-gate.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "gpu-gate.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "gpu-gate.tolerations" -}}
# A cluster of GPU nodes only must recover by itself.
- {key: startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate, operator: Exists}
- {key: nvidia.com/gpu, operator: Exists}
{{- end }}
{{- define "gpu-gate.resources" -}}
{{- $spec := .Values.policy.spec | default dict -}}
{{- toJson (index $spec "resources" | default (list "nvidia.com/gpu" "nvidia.com/gpu.shared")) -}}
{{- end }}
{{- /* Not empty: cert-manager makes the certificates. */ -}}
{{- define "gpu-gate.certManager" -}}
{{- if eq .Values.certs.source "cert-manager" }}true
{{- else if ne .Values.certs.source "self" }}{{ fail (printf "certs.source %q: write self or cert-manager" .Values.certs.source) }}
{{- end }}
{{- end }}
