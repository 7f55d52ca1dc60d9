#!/usr/bin/env bash
# Lets go.mod and go.sum name what is used, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
go mod tidy
