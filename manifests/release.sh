#!/usr/bin/env bash
# Makes what a release consists of, into .parts/release/VERSION; `make release` calls it.
#   manifests/release.sh                        for amd64 and arm64
#   manifests/release.sh --architecture amd64   only for this one; may be repeated
#
#   sidestep-linux-ARCHITECTURE   the command line, linked statically
#   webhook.tar, agent.tar        the images, as OCI archives
#   sidestep-VERSION.tgz          the chart, as `helm install` takes it
#   chart.tar                     the same as an OCI archive, for a registry
#   install.yaml                  the chart with its default values, for kubectl
#   NAME.cdx.json                 what each program is made of (CycloneDX)
#   krew.yaml, kubectl-sidestep-linux-ARCHITECTURE.tar.gz   what krew installs as `kubectl sidestep`, if RELEASES says where releases will be
#   METRICS.md, RUNBOOKS.md, rules.yaml, dashboard.json, CHANGELOG.md, LICENSE
#   SHA256SUMS
#
# The same source gives the same bytes in the same folder, by the toolchain of rust-toolchain.toml: no times, no owners. In another folder the
# agent differs: debugging information in its BPF objects names the paths of their sources. `sha256sum -c SHA256SUMS` checks a copy.
set -euo pipefail
cd "$(dirname "$0")/.."

architectures=()
while [ $# -gt 0 ]; do
    case $1 in
    --architecture) architectures+=("$2"); shift 2 ;;
    *) echo "release: unknown argument $1 (--architecture NAME)" >&2; exit 1 ;;
    esac
done
[ ${#architectures[@]} -gt 0 ] || architectures=(amd64 arm64)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
output=.parts/release/$version
part=.parts/release/.part
# What an interrupted run left.
rm -rf "$part"
mkdir -p "$part"
PATH=$PWD/.parts/bin:$PWD/.parts/cluster/bin:$PATH
# Of the commit, for whatever writes a time. A release is made of a commit; without one there is no better time than none.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

arguments=()
for architecture in "${architectures[@]}"; do arguments+=(--architecture "$architecture"); done
manifests/images/build.sh --output "$part" --programs "$part" "${arguments[@]}"

manifests/render.sh >"$part/install.yaml"
# `helm package` would add times; the chart is checked as that does, and packed by ours.
helm lint --strict --quiet manifests/chart
python3 manifests/images/chart.py --chart manifests/chart --archive "$part/sidestep-$version.tgz" --oci "$part/chart.tar"

# One list beside the manifest of every crate of the workspace, whichever is asked for.
lists=parts-of-release.cdx
folders() { cargo metadata --no-deps --format-version 1 --locked | python3 manifests/images/parts.py folders; }
trap 'folders | while read -r _ folder; do rm -f "$folder/$lists.json"; done' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename "$lists"
folders | while read -r name folder; do
    case $name in
    sidestep | sidestep-agent | sidestep-webhook) python3 manifests/images/parts.py list "$folder/$lists.json" "$part/$name.cdx.json" ;;
    esac
done

cp CHANGELOG.md LICENSE manifests/METRICS.md manifests/RUNBOOKS.md manifests/chart/monitoring/{rules.yaml,dashboard.json} "$part/"
if [ -n "${RELEASES-}" ]; then
    manifests/krew.sh "$part" "$version" "$RELEASES"
else
    echo "release: RELEASES is not set, the URL of releases: there is nothing for krew"
fi
(cd "$part" && sha256sum -- * >SHA256SUMS)
rm -rf "$output"
mv "$part" "$output"
echo "release: $output"
