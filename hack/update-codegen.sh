#!/usr/bin/env bash
# Rewrites everything that is generated from code: the deep copies of the API
# types, the CustomResourceDefinitions in the chart, the chart's roles for the
# syncer, and its list of annotations of Ingresses.
set -euo pipefail
cd "$(dirname "$0")/.."

controller_gen=sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0
chart=${CHART_DIR:-charts/sublet/templates}
deepcopy=${DEEPCOPY_DIR:-api/v1alpha1}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

go run "$controller_gen" \
  object paths=./api/... output:object:dir="$scratch/api" \
  crd output:crd:dir="$scratch/crds"
mkdir -p "$deepcopy" "$chart/crds"
cp "$scratch/api/zz_generated.deepcopy.go" "$deepcopy/"

# Templates, not files under crds/: those are never upgraded. Uninstalling keeps
# them, and with them every Tenant.
for crd in "$scratch"/crds/*.yaml; do
  sed 's|^  annotations:$|&\n    helm.sh/resource-policy: keep|' "$crd" |
    sed 's|{{|{{ "{{" }}|g' >"$chart/crds/$(basename "$crd")"
done

go run ./hack/chartrbac >"$scratch/syncer.yaml"
cp "$scratch/syncer.yaml" "$chart/syncer.yaml"
go run ./hack/chartrbac ingress >"$scratch/ingress.tpl"
cp "$scratch/ingress.tpl" "$chart/_ingress.tpl"
