#!/usr/bin/env bash
# Formats every Go file.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files '*.go' | xargs gofmt -w
