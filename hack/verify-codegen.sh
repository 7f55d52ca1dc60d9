#!/usr/bin/env bash
# Fails when hack/update-codegen.sh would change a file.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
CHART_DIR="$fresh/chart" DEEPCOPY_DIR="$fresh/api" hack/update-codegen.sh

stale=0
diff -u api/v1alpha1/zz_generated.deepcopy.go "$fresh/api/zz_generated.deepcopy.go" || stale=1
diff -ru charts/sublet/templates/crds "$fresh/chart/crds" || stale=1
diff -u charts/sublet/templates/syncer.yaml "$fresh/chart/syncer.yaml" || stale=1
diff -u charts/sublet/templates/_ingress.tpl "$fresh/chart/_ingress.tpl" || stale=1
if [ "$stale" -ne 0 ]; then
  echo "generated files are stale: run hack/update-codegen.sh (or make generate)" >&2
  exit 1
fi
