#!/usr/bin/env bash
# Fails when gofmt would change a file.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
  echo "gofmt would change these files; run hack/update-gofmt.sh:" >&2
  echo "$unformatted" >&2
  exit 1
fi
