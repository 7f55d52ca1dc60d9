#!/usr/bin/env bash
# Fails when go.mod or go.sum names too much or too little.
set -euo pipefail
cd "$(dirname "$0")/.."
go mod tidy -diff >/dev/null || {
  echo "go.mod or go.sum is stale; run hack/update-mod.sh" >&2
  exit 1
}
