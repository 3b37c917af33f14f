#!/usr/bin/env bash
# Prints what `kubectl apply` needs of the chart with its default values: manifests/install.yaml. Hooks are Helm's alone.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PWD/../.parts/cluster/bin:$PATH
command -v helm >/dev/null || { echo "render.sh: no helm: run tests/setup.sh cluster, which builds it" >&2; exit 1; }
cat <<'HEAD'
# Made by `make manifests` from manifests/chart with its default values: change those instead.
#   kubectl apply --server-side -f install.yaml
HEAD
cat namespace.yaml
helm template sidestep chart --no-hooks --namespace sidestep-system --kube-version 1.34.0
