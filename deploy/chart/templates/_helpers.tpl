{{- define "gpu-gate.labels" -}}
app.kubernetes.io/name: gpu-gate
app.kubernetes.io/part-of: gpu-gate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "gpu-gate.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
{{- /* A scheduler must not be newer than its API server: the cluster's own version, without what a distribution appends to it. */ -}}
{{- define "gpu-gate.schedulerImage" -}}
{{- with .Values.scheduler -}}
{{- $own := regexFind "^v[0-9]+[.][0-9]+[.][0-9]+(-(alpha|beta|rc)[.][0-9]+)?" $.Capabilities.KubeVersion.Version -}}
{{ .image }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .version | default $own }}{{ end }}
{{- end }}
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
{{- /* Pod spec that all our Deployments share; called with the root and the component's name. */ -}}
{{- define "gpu-gate.placement" -}}
{{- with .root.Values -}}
# Only where a pod reads a Service's address: variables named like our options must not come about by accident.
enableServiceLinks: {{ default false $.serviceLinks }}
priorityClassName: {{ .priorityClassName }}
{{- with .imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  # A cluster of GPU nodes only must recover by itself.
  - {key: startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate, operator: Exists}
  - {key: nvidia.com/gpu, operator: Exists}
  {{- with .tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {app.kubernetes.io/name: gpu-gate, app.kubernetes.io/component: {{ $.component }}}}
    # Counted per roll-out: pods about to go must not push the new ones together.
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- define "gpu-gate.budget" -}}
maxUnavailable: 1
selector: {matchLabels: {app.kubernetes.io/name: gpu-gate, app.kubernetes.io/component: {{ . }}}}
# A replica that is not Ready serves nobody: it must not hold a drain up.
unhealthyPodEvictionPolicy: AlwaysAllow
{{- end }}
{{- define "gpu-gate.resources" -}}
{{- $spec := .Values.policy.spec | default dict -}}
{{- toJson (index $spec "resources" | default (list "nvidia.com/gpu" "nvidia.com/gpu.shared")) -}}
{{- end }}
{{- /* CEL over a resource's name `k`: true for the policy's resources. */ -}}
{{- define "gpu-gate.matchesResource" -}}
{{- $clauses := list -}}
{{- range include "gpu-gate.resources" . | fromJsonArray -}}
{{- /* It goes into CEL as text: nothing that could end a string there. */ -}}
{{- if not (regexMatch "^[a-z0-9][-a-z0-9.]*/[-._A-Za-z0-9]*[*]?$" .) -}}
{{- fail (printf "policy.spec.resources: %q is no resource: write an exact name such as nvidia.com/gpu, or nvidia.com/mig-*" .) -}}
{{- end -}}
{{- if hasSuffix "*" . -}}
{{- $clauses = append $clauses (printf "k.startsWith('%s')" (trimSuffix "*" .)) -}}
{{- else -}}
{{- $clauses = append $clauses (printf "k == '%s'" .) -}}
{{- end -}}
{{- end -}}
{{- join " || " $clauses -}}
{{- end }}
{{- /* The one name of the RuntimeClass: of the chart's object and of what is injected. */ -}}
{{- define "gpu-gate.runtimeClass" -}}
{{- $injection := (.Values.policy.spec | default dict).injection | default dict -}}
{{- $made := .Values.runtimeClass.name -}}
{{- /* Where none is injected, operands still run under nvidia. */ -}}
{{- $injected := ternary ($injection.runtimeClassName | default "nvidia") "" (hasKey $injection "runtimeClassName") -}}
{{- if and .Values.runtimeClass.create $made (ne ($injected | default $made) $made) -}}
{{- fail (printf "runtimeClass.name is %q, policy.spec.injection.runtimeClassName is %q: write one of them, the other follows; for a class of your own also runtimeClass.create: false" $made $injected) -}}
{{- end -}}
{{- $injected | default $made | default "nvidia" -}}
{{- end }}
{{- define "gpu-gate.deletesRejectedPods" -}}
{{- $asked := eq ((.Values.policy.spec | default dict).rejectedPods | default "Report") "Delete" -}}
{{- if kindIs "bool" .Values.rbac.deleteRejectedPods }}{{ $asked = .Values.rbac.deleteRejectedPods }}{{ end -}}
{{- if $asked }}true{{ end -}}
{{- end }}
{{- define "gpu-gate.managesDriver" -}}
{{- $components := (.Values.policy.spec | default dict).components | default dict -}}
{{- $may := ne (($components.driver | default dict).mode | default "managed") "external" -}}
{{- if kindIs "bool" .Values.rbac.driver }}{{ $may = .Values.rbac.driver }}{{ end -}}
{{- if $may }}true{{ end -}}
{{- end }}
{{- /* How a scheduler reaches the extender: of the chart's own and of the snippet. Called with the root and the folders of its files. */ -}}
{{- define "gpu-gate.extender" -}}
{{- with .root -}}
- urlPrefix: https://{{ .Values.extender.clusterIP | default (printf "gpu-gate-extender.%s.svc" .Release.Namespace) }}
  filterVerb: filter
  prioritizeVerb: prioritize
  preemptVerb: preempt
  weight: 1
  nodeCacheCapable: true
  ignorable: {{ .Values.extender.ignorable }}
  httpTimeout: 5s
  enableHTTPS: true
  # Without a CA the scheduler would verify nothing.
  tlsConfig:
    caFile: {{ $.ca }}/ca.crt
    serverName: gpu-gate-extender.{{ .Release.Namespace }}.svc
    {{- if .Values.extender.requireClientCertificate }}
    # Read anew when they change, unlike the CA.
    certFile: {{ $.client }}/tls.crt
    keyFile: {{ $.client }}/tls.key
    {{- end }}
{{- end }}
{{- end }}
{{- define "gpu-gate.schedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: true, resourceNamespace: {{ .Release.Namespace }}, resourceName: gpu-gate-scheduler}
# Of 1,000 nodes the default asks about 420 at most: the open one may not be among them.
percentageOfNodesToScore: 100
profiles: [{schedulerName: gpu-gate-scheduler}]
extenders:
  {{- include "gpu-gate.extender" (dict "root" . "ca" "/etc/gpu-gate/ca" "client" "/etc/gpu-gate/client") | nindent 2 }}
{{- end }}
{{- /* Not empty: cert-manager makes the certificates. */ -}}
{{- define "gpu-gate.certManager" -}}
{{- if eq .Values.certs.source "cert-manager" }}true{{ end }}
{{- end }}
{{- define "gpu-gate.taint" -}}
startup-taint.cluster-autoscaler.kubernetes.io/gpu-gate
{{- end }}
{{- /* Variables of admission policies. Untyped, because some rules walk over all fields, whatever an API server's version has. */ -}}
{{- define "gpu-gate.beforeAndAfter" -}}
- {name: after, expression: "object == null ? dyn({}) : dyn(object)"}
- {name: before, expression: "oldObject == null ? dyn({}) : dyn(oldObject)"}
{{- end }}
{{- /* CEL: the status is the same but for the condition of that type. */ -}}
{{- define "gpu-gate.onlyCondition" -}}
{{- $others := printf "filter(c, c.type != '%s')" . -}}
variables.after.?status.orValue({}).all(k, k == 'conditions' || variables.before.?status[?k] == optional.of(variables.after.status[k])) && variables.before.?status.orValue({}).all(k, k == 'conditions' || k in variables.after.?status.orValue({})) && variables.after.?status.?conditions.orValue([]).{{ $others }} == variables.before.?status.?conditions.orValue([]).{{ $others }}
{{- end }}
{{- /* Binds an admission policy, for the whole cluster. Called with the root and the policy's name. */ -}}
{{- define "gpu-gate.binding" }}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ index . 1 }}
  labels: {{- include "gpu-gate.labels" (index . 0) | nindent 4 }}
spec: {policyName: {{ index . 1 }}, validationActions: [Deny]}
{{- end }}
