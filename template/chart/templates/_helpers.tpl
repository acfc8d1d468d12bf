{{/* What several templates share. */}}

{{- define "labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "selector" . }}
{{- end }}

{{- define "selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "firewallSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-firewall
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}

{{/* Where the material comes from: "values", "secret" or "folders". */}}
{{- define "source" -}}
{{- if .Values.existingSecret }}secret{{ else if or .Values.dirPaths.local .Values.dirPaths.configs }}folders{{ else }}values{{ end }}
{{- end }}

{{- define "secret" -}}
{{ .Values.existingSecret | default .Release.Name }}
{{- end }}

{{- define "configsFolder" -}}
{{ .Values.dirPaths.configs | default (printf "%s/configs" (trimSuffix "/" .Values.dirPaths.local)) }}
{{- end }}

{{- define "containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What every pod of the chart has. Nothing in it talks to the API. */}}
{{- define "pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector: {{- merge (dict "kubernetes.io/os" "linux") .Values.nodeSelector | toYaml | nindent 2 }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* When this changes, the pods restart. crl.pem and the clients are not in it: they are read while it runs. */}}
{{- define "checksum" -}}
{{- $material := omit (.Values.material | default dict) "crl.pem" }}
{{- if .Values.existingSecret }}
{{- $found := lookup "v1" "Secret" .Release.Namespace .Values.existingSecret | default dict }}
{{- $material = omit ($found.data | default dict) "crl.pem" }}
{{- end }}
{{- list $material .Values.serverConf .Values.revocations | toJson | sha256sum }}
{{- end }}

{{/* Fails with one sentence that names the bad value's key. */}}
{{- define "validate" -}}
{{- if hasKey .Values "hostNetwork" }}
{{- fail "hostNetwork is not a value any more: remove it, and set dockerNetworks to true if clients are to reach the node's Docker networks." }}
{{- end }}
{{- range $key, $cidrs := dict "vpn.subnet" (list .Values.vpn.subnet) "vpn.routes" .Values.vpn.routes
    "service.loadBalancerSourceRanges" .Values.service.loadBalancerSourceRanges }}
{{- range $cidr := $cidrs }}{{ include "validateCidr" (dict "key" $key "cidr" $cidr) }}{{ end }}
{{- end }}
{{- if not (hasSuffix "/24" .Values.vpn.subnet) }}
{{- fail (printf "vpn.subnet: %q is not a /24." .Values.vpn.subnet) }}
{{- end }}
{{- if and (eq .Values.service.type "NodePort") (or (lt (int .Values.vpn.port) 30000) (gt (int .Values.vpn.port) 32767)) }}
{{- fail (printf "service.type: \"NodePort\" needs a vpn.port from 30000 to 32767, and it is %d." (int .Values.vpn.port)) }}
{{- end }}
{{- if and .Values.existingSecret (or .Values.dirPaths.data .Values.dirPaths.local .Values.dirPaths.configs) }}
{{- fail "existingSecret and dirPaths are both set: the material comes from one place, so leave one of them empty." }}
{{- end }}
{{- if and .Values.dirPaths.data (eq (include "source" .) "values") }}
{{- fail "dirPaths.data is set, but neither dirPaths.local nor dirPaths.configs: name the project's local folder, too." }}
{{- end }}
{{- range .Values.vpn.routes }}
{{- if hasSuffix "/0" . }}
{{- fail (printf "vpn.routes: %q would send all traffic through the VPN: name the networks that you want." .) }}
{{- end }}
{{- $size := max 256 (include "sizeOf" . | atoi) }}
{{- if eq (div (include "numberOf" . | atoi) $size) (div (include "numberOf" $.Values.vpn.subnet | atoi) $size) }}
{{- fail (printf "vpn.routes: %q overlaps the VPN's own subnet %s." . $.Values.vpn.subnet) }}
{{- end }}
{{- end }}
{{- if .Values.serverConf }}
{{- if not (contains (printf "\nserver %s " (first (splitList "/" .Values.vpn.subnet))) .Values.serverConf) }}
{{- fail (printf "vpn.subnet: %q is not the one in serverConf: change it by `copier update`, which changes both." .Values.vpn.subnet) }}
{{- end }}
{{- if not (contains (printf "\nproto %s" .Values.vpn.protocol) .Values.serverConf) }}
{{- fail (printf "vpn.protocol: %q is not the one in serverConf: change it by `copier update`, which changes both." .Values.vpn.protocol) }}
{{- end }}
{{- end }}
{{- if not .Values.vpn.routes }}
{{- fail "vpn.routes is empty, so clients would reach nothing: add `-f local/values.yaml`, which scripts/generate.py writes." }}
{{- end }}
{{- if and (not .Values.serverConf) (not .Values.dirPaths.data) }}
{{- fail "serverConf is empty: add `-f local/values.yaml`, which scripts/generate.py writes." }}
{{- end }}
{{- if eq (include "source" .) "values" }}
{{- range $name := list "ca.crt" "server.crt" "server.key" "tls-crypt-v2.key" "crl.pem" }}
{{- if not (index ($.Values.material | default dict) $name) }}
{{- fail (printf "material.%s is missing: add `-f local/values.yaml`, which scripts/generate.py writes, or set existingSecret or dirPaths." $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The first address of a network, as a number, and how many it has. */}}
{{- define "numberOf" -}}
{{- $number := 0 }}
{{- range $byte := splitList "." (first (splitList "/" .)) }}{{ $number = add (mul $number 256) (atoi $byte) }}{{ end }}
{{- $number }}
{{- end }}
{{- define "sizeOf" -}}
{{- $size := 1 }}
{{- range until (int (sub 32 (atoi (last (splitList "/" .))))) }}{{ $size = mul $size 2 }}{{ end }}
{{- $size }}
{{- end }}

{{- define "validateCidr" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" }}
{{- if not (regexMatch (printf "^(%s[.]){3}%s/(3[0-2]|[12]?[0-9])$" $byte $byte) .cidr) }}
{{- fail (printf "%s: %q is not an IPv4 network, such as 10.96.0.0/12." .key .cidr) }}
{{- end }}
{{- $number := include "numberOf" .cidr | atoi }}
{{- $size := include "sizeOf" .cidr | atoi }}
{{- if mod $number $size }}
{{- $network := sub $number (mod $number $size) }}
{{- $dotted := printf "%d.%d.%d.%d" (div $network 16777216) (mod (div $network 65536) 256) (mod (div $network 256) 256) (mod $network 256) }}
{{- fail (printf "%s: %q has host bits set: the network is %s/%s." .key .cidr $dotted (last (splitList "/" .cidr))) }}
{{- end }}
{{- end }}
