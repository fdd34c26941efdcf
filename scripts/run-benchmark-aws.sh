#!/usr/bin/env bash
# The benchmark on EKS, from no cluster to none: scripts/README.md. Arguments: [MINUTES] [CLUSTER].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v cargo >/dev/null || {
    echo "$0: not found on PATH: cargo. README.md says how to get it" >&2
    exit 2
}
exec cargo run --quiet --release --bin cluster-benchmark -- aws "$@"
