{{- define "gpu-gate.labels" -}}
app.kubernetes.io/name: gpu-gate
app.kubernetes.io/part-of: gpu-gate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- /* An image's repository in the registry of all images, if there is one. Called with the root and the repository. */ -}}
{{- define "gpu-gate.repository" -}}
{{- $registry := (index . 0).Values.global.imageRegistry | default "" | trimSuffix "/" -}}
{{- $parts := splitList "/" (index . 1) -}}
{{- $first := first $parts -}}
{{- /* As container runtimes read it: the first part is a registry if it looks like a host. */ -}}
{{- $path := ternary (join "/" (rest $parts)) (index . 1) (and (gt (len $parts) 1) (or (contains "." $first) (contains ":" $first) (eq $first "localhost"))) -}}
{{- if $registry }}{{ $registry }}/{{ $path }}{{ else }}{{ index . 1 }}{{ end -}}
{{- end }}
{{- /* Pull secrets of our own pods. */ -}}
{{- define "gpu-gate.pullSecrets" -}}
{{- concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets | uniq | toJson -}}
{{- end }}
{{- /* The ServiceAccount that runs reconciler and certificates: in one process also the request path. */ -}}
{{- define "gpu-gate.requestPathAccount" -}}
{{- ternary "gpu-gate-reconciler" "gpu-gate" .Values.oneProcess -}}
{{- end }}
{{- define "gpu-gate.image" -}}
{{- with .Values.image -}}
{{ include "gpu-gate.repository" (list $ .repository) }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
{{- /* A scheduler must not be newer than its API server: the cluster's own version, without what a distribution appends to it. */ -}}
{{- define "gpu-gate.schedulerImage" -}}
{{- with .Values.scheduler -}}
{{- $own := regexFind "^v[0-9]+[.][0-9]+[.][0-9]+(-(alpha|beta|rc)[.][0-9]+)?" $.Capabilities.KubeVersion.Version -}}
{{ include "gpu-gate.repository" (list $ .image) }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .version | default $own }}{{ end }}
{{- end }}
{{- end }}
{{- define "gpu-gate.securityContext" -}}
{{- toYaml .Values.securityContext -}}
{{- end }}
{{- /* Pod spec that all our Deployments share; called with the root and the component's name. */ -}}
{{- define "gpu-gate.placement" -}}
{{- with .root.Values -}}
# Only where a pod reads a Service's address: variables named like our options must not come about by accident.
enableServiceLinks: {{ default false $.serviceLinks }}
priorityClassName: {{ .priorityClassName }}
{{- with include "gpu-gate.pullSecrets" $.root | fromJsonArray }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
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
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  # Counted per roll-out: pods about to go must not push the new ones together.
  - {{ merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" (dict "app.kubernetes.io/name" "gpu-gate" "app.kubernetes.io/component" $.component)) "matchLabelKeys" (list "pod-template-hash")) | toJson }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /* Called with the root and the component's name. */ -}}
{{- define "gpu-gate.budget" -}}
maxUnavailable: {{ (index . 0).Values.podDisruptionBudget.maxUnavailable }}
selector: {matchLabels: {app.kubernetes.io/name: gpu-gate, app.kubernetes.io/component: {{ index . 1 }}}}
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
{{- fail (printf "policy.spec.resources: %q is not a resource name: write an exact name such as nvidia.com/gpu, or nvidia.com/mig-*" .) -}}
{{- end -}}
{{- if hasSuffix "*" . -}}
{{- $clauses = append $clauses (printf "k.startsWith('%s')" (trimSuffix "*" .)) -}}
{{- else -}}
{{- $clauses = append $clauses (printf "k == '%s'" .) -}}
{{- end -}}
{{- end -}}
{{- join " || " $clauses -}}
{{- end }}
{{- /* CEL over a pod: it has a claim, or a container asks for one of the policy's resources or for a resource that a DeviceClass may map.
CEL cannot see the classes of a claim, nor what a class maps: such a pod costs one call that leaves it alone. */ -}}
{{- define "gpu-gate.asksForGpu" -}}
size(object.spec.?resourceClaims.orValue([])) > 0 ||
(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
c.?resources.?limits.orValue({}).exists(k, ({{ include "gpu-gate.matchesResource" . }} || {{ include "gpu-gate.mayBeMapped" . }}) &&
quantity(string(c.resources.limits[k])).isGreaterThan(quantity('0'))))
{{- end }}
{{- /* CEL over a pod: as far as CEL can tell, a container asks for a GPU of the policy. Where a pod is refused, nothing may be guessed. */ -}}
{{- define "gpu-gate.certainlyAsksForGpu" -}}
(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
c.?resources.?limits.orValue({}).exists(k, ({{ include "gpu-gate.matchesResource" . }}{{ include "gpu-gate.orImplicitClass" . }}) &&
quantity(string(c.resources.limits[k])).isGreaterThan(quantity('0'))))
{{- end }}
{{- define "gpu-gate.orImplicitClass" -}}
{{- $spec := .Values.policy.spec | default dict -}}
{{- range ternary $spec.deviceClasses (list "gpu.nvidia.com" "mig.nvidia.com") (hasKey $spec "deviceClasses") -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" .) -}}
{{- fail (printf "policy.spec.deviceClasses: %q is not the name of a DeviceClass, such as gpu.nvidia.com" .) -}}
{{- end }} || k == 'deviceclass.resource.kubernetes.io/{{ . }}'
{{- end -}}
{{- end }}
{{- /* CEL over a resource's name `k`: an extended resource outside nvidia.com/, as Kubernetes decides it. */ -}}
{{- define "gpu-gate.mayBeMapped" -}}
k.startsWith('deviceclass.resource.kubernetes.io/') ||
(k.contains('/') && !k.contains('kubernetes.io/') && !k.startsWith('nvidia.com/'))
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
{{- define "gpu-gate.evictsPods" -}}
{{- $drain := ((.Values.policy.spec | default dict).upgrade | default dict).drain | default dict -}}
{{- $asked := eq ($drain.mode | default "Wait") "Evict" -}}
{{- if kindIs "bool" .Values.rbac.evictPods }}{{ $asked = .Values.rbac.evictPods }}{{ end -}}
{{- if $asked }}true{{ end -}}
{{- end }}
{{- define "gpu-gate.managesDriver" -}}
{{- $components := (.Values.policy.spec | default dict).components | default dict -}}
{{- $may := ne (($components.driver | default dict).mode | default "managed") "external" -}}
{{- if kindIs "bool" .Values.rbac.driver }}{{ $may = .Values.rbac.driver }}{{ end -}}
{{- if $may }}true{{ end -}}
{{- end }}
{{- /* Effects that the reconciler may give the taint of a node that is not open. NoExecute ends pods. */ -}}
{{- define "gpu-gate.taintEffects" -}}
{{- $may := eq ((.Values.policy.spec | default dict).withdrawnPods | default "Keep") "Evict" -}}
{{- if kindIs "bool" .Values.rbac.evictByTaint }}{{ $may = .Values.rbac.evictByTaint }}{{ end -}}
{{- ternary "['NoSchedule', 'NoExecute']" "['NoSchedule']" $may -}}
{{- end }}
{{- /* Does a policy allocate GPUs by claim, as far as the chart knows? */ -}}
{{- define "gpu-gate.allocatesByClaim" -}}
{{- $may := eq ((.Values.policy.spec | default dict).allocation | default "DevicePlugin") "DRA" -}}
{{- if kindIs "bool" .Values.rbac.draDriver }}{{ $may = or $may .Values.rbac.draDriver }}{{ end -}}
{{- if $may }}true{{ end -}}
{{- end }}
{{- /* Does a managed DRA driver run, as far as the chart knows? */ -}}
{{- define "gpu-gate.managesDra" -}}
{{- $spec := .Values.policy.spec | default dict -}}
{{- $dra := ($spec.components | default dict).draDriver | default dict -}}
{{- $may := and (eq ($spec.allocation | default "DevicePlugin") "DRA") (ne ($dra.mode | default "managed") "external") -}}
{{- if kindIs "bool" .Values.rbac.draDriver }}{{ $may = .Values.rbac.draDriver }}{{ end -}}
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
    # The scheduler reloads these two files when they change. It does not reload the CA.
    certFile: {{ $.client }}/tls.crt
    keyFile: {{ $.client }}/tls.key
    {{- end }}
{{- end }}
{{- end }}
{{- define "gpu-gate.pluginConfig" -}}
{{- $config := .Values.scheduler.pluginConfig -}}
{{- if .Values.scheduler.binPacking -}}
{{- range $config }}{{ if eq .name "NodeResourcesFit" }}{{ fail "scheduler.binPacking: true writes the NodeResourcesFit of the profile itself: leave it out of scheduler.pluginConfig, or set binPacking: false" }}{{ end }}{{ end -}}
{{- $resources := list -}}
{{- range include "gpu-gate.resources" . | fromJsonArray }}{{ if not (hasSuffix "*" .) }}{{ $resources = append $resources (dict "name" . "weight" 10) }}{{ end }}{{ end -}}
{{- $resources = concat $resources (list (dict "name" "cpu" "weight" 1) (dict "name" "memory" "weight" 1)) -}}
{{- $config = append $config (dict "name" "NodeResourcesFit" "args" (dict "scoringStrategy" (dict "type" "MostAllocated" "resources" $resources))) -}}
{{- end -}}
{{- $config | toJson -}}
{{- end }}
{{- define "gpu-gate.schedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: true, resourceNamespace: {{ .Release.Namespace }}, resourceName: gpu-gate-scheduler}
# Of 1,000 nodes the default asks about 420 at most: the open one may not be among them.
percentageOfNodesToScore: 100
profiles:
  - schedulerName: gpu-gate-scheduler
    {{- with include "gpu-gate.pluginConfig" . | fromJsonArray }}
    pluginConfig: {{- toYaml . | nindent 6 }}
    {{- end }}
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
{{- /* What the API server would fill into matchConstraints, so that tools see no difference. */ -}}
{{- define "gpu-gate.matchAll" -}}
matchPolicy: Equivalent
namespaceSelector: {}
objectSelector: {}
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
{{- /* Images of the default policy's operands in the registry of all images, and pull secrets, where the policy names none of its own. */ -}}
{{- define "gpu-gate.policySpec" -}}
{{- $spec := deepCopy (.Values.policy.spec | default dict) -}}
{{- $injection := deepCopy (index $spec "injection" | default dict) -}}
{{- if and .Values.scheduler.create (not (hasKey $injection "schedulerName")) -}}
{{- $_ := set $injection "schedulerName" "gpu-gate-scheduler" -}}
{{- end -}}
{{- if not (hasKey $injection "runtimeClassName") -}}
{{- $_ := set $injection "runtimeClassName" (include "gpu-gate.runtimeClass" .) -}}
{{- end -}}
{{- $_ := set $spec "injection" $injection -}}
{{- $registry := .Values.global.imageRegistry -}}
{{- $secrets := list -}}
{{- range .Values.global.imagePullSecrets }}{{ $secrets = append $secrets .name }}{{ end -}}
{{- $operands := dict "toolkit" "nvcr.io/nvidia/k8s/container-toolkit" "driver" "nvcr.io/nvidia/driver" "devicePlugin" "nvcr.io/nvidia/k8s-device-plugin" "draDriver" "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu" "dcgmExporter" "nvcr.io/nvidia/k8s/dcgm-exporter" "featureDiscovery" "nvcr.io/nvidia/k8s-device-plugin" -}}
{{- if or $registry $secrets -}}
{{- $components := deepCopy (index $spec "components" | default dict) -}}
{{- range $name, $image := $operands -}}
{{- $component := deepCopy (index $components $name | default dict) -}}
{{- if and $registry (not $component.image) }}{{ $_ := set $component "image" (include "gpu-gate.repository" (list $ $image)) }}{{ end -}}
{{- if and $secrets (not $component.imagePullSecrets) }}{{ $_ := set $component "imagePullSecrets" $secrets }}{{ end -}}
{{- if and $registry (eq $name "driver") -}}
{{- $manager := deepCopy ($component.manager | default dict) -}}
{{- if not $manager.image }}{{ $_ := set $manager "image" (include "gpu-gate.repository" (list $ "nvcr.io/nvidia/cloud-native/k8s-driver-manager")) }}{{ end -}}
{{- $_ := set $component "manager" $manager -}}
{{- end -}}
{{- $_ := set $components $name $component -}}
{{- end -}}
{{- $_ := set $spec "components" $components -}}
{{- $validation := deepCopy (index $spec "validation" | default dict) -}}
{{- if and $registry (not $validation.image) }}{{ $_ := set $validation "image" (include "gpu-gate.repository" (list $ "nvcr.io/nvidia/k8s/cuda-sample:vectoradd-cuda12.5.0-ubuntu22.04")) }}{{ end -}}
{{- if and $secrets (not $validation.imagePullSecrets) }}{{ $_ := set $validation "imagePullSecrets" $secrets }}{{ end -}}
{{- $_ := set $spec "validation" $validation -}}
{{- end -}}
{{- if .Values.devicePlugin.config -}}
{{- $components := deepCopy (index $spec "components" | default dict) -}}
{{- $plugin := deepCopy ($components.devicePlugin | default dict) -}}
{{- if $plugin.config }}{{ fail "devicePlugin.config makes a ConfigMap, and policy.spec.components.devicePlugin.config names one of yours: write one of them" }}{{ end -}}
{{- $_ := set $plugin "config" (include "gpu-gate.devicePluginConfig" .) -}}
{{- $_ := set $components "devicePlugin" $plugin -}}
{{- $_ := set $spec "components" $components -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end }}
{{- /* The name of the device plugin's ConfigMap: another content is another object, and so a new revision of the plugin. */ -}}
{{- define "gpu-gate.devicePluginConfig" -}}
gpu-gate-device-plugin-{{ .Values.devicePlugin.config | toJson | sha256sum | trunc 8 }}
{{- end }}
{{- /* Options of the program, each once, so that a typing error in `env` is refused here and not by a pod that does not start. */ -}}
{{- define "gpu-gate.variables" -}}
["GPU_GATE_ROLES", "GPU_GATE_KUBECONFIG", "GPU_GATE_NAMESPACE", "GPU_GATE_OPERAND_NAMESPACE", "GPU_GATE_EXCLUDED_NAMESPACES", "GPU_GATE_WEBHOOK_RESOURCES", "GPU_GATE_RUNTIME_CLASS", "GPU_GATE_RUNTIME_CLASS_HANDLER", "GPU_GATE_BIND_ADDRESS", "GPU_GATE_WEBHOOK_PORT", "GPU_GATE_CANARY_PORT", "GPU_GATE_EXTENDER_PORT", "GPU_GATE_METRICS_PORT", "GPU_GATE_CALLS_PER_CONNECTION", "GPU_GATE_MAX_CONNECTIONS", "GPU_GATE_MAX_CALLS_IN_FLIGHT", "GPU_GATE_MAX_BYTES_IN_FLIGHT", "GPU_GATE_LEASE_NAME", "GPU_GATE_LEASE_DURATION", "GPU_GATE_NOT_READY_GRACE", "GPU_GATE_WAKE_AFTER", "GPU_GATE_WATCH_LIMIT", "GPU_GATE_DRAIN", "GPU_GATE_CERT_LIFE", "GPU_GATE_CA_LIFE", "GPU_GATE_EXTENDER_CA_LIFE", "GPU_GATE_EXTENDER_CA_OVERLAP", "GPU_GATE_CANARY_WINDOW", "GPU_GATE_CA_GRACE", "GPU_GATE_CERT_CHECK", "GPU_GATE_CERT_SOURCE", "GPU_GATE_API_SERVERS", "GPU_GATE_API_SERVER_NAME", "GPU_GATE_WEBHOOK_REPLICAS", "GPU_GATE_EXTENDER_REPLICAS", "GPU_GATE_EXTENDER_CLIENTS", "GPU_GATE_WEBHOOK_CLIENT_CA", "GPU_GATE_WEBHOOK_CLIENTS", "GPU_GATE_CERT_EXTRA_SANS", "GPU_GATE_LOG_LEVEL"]
{{- end }}
{{- /* Annotations of what `helm uninstall` makes first, and deletes again. Called with the weight. */ -}}
{{- define "gpu-gate.preDelete" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- /* Values that would install and fail later. */ -}}
{{- define "gpu-gate.check" -}}
{{- if eq .Values.operandNamespace.name .Release.Namespace -}}
{{- fail (printf "operandNamespace.name is %q, the release's own namespace: drivers are privileged, and gpu-gate never injects pods of either namespace. Name another one, such as gpu-gate-operands" .Release.Namespace) -}}
{{- end -}}
{{- $known := include "gpu-gate.variables" . | fromJsonArray -}}
{{- range .Values.env -}}
{{- if and (hasPrefix "GPU_GATE_" .name) (not (has .name $known)) -}}
{{- fail (printf "env: %s is not an option of gpu-gate, and no pod would start with it; the options are in docs and in `node main.ts --help`" .name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (dig "sharing" dict .Values.devicePlugin.config) "mps" -}}
{{- fail "devicePlugin.config: sharing.mps needs NVIDIA's MPS daemon, which gpu-gate does not bring: use sharing.timeSlicing, or set devicePlugin to mode: external in policy.spec.components and install it yourself" -}}
{{- end -}}
{{- $ports := list .Values.webhook.port .Values.webhook.canaryPort .Values.extender.port .Values.metricsPort -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail "webhook.port, webhook.canaryPort, extender.port and metricsPort must differ: one process listens on all of them" -}}
{{- end -}}
{{- end }}
