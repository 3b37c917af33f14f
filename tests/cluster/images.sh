#!/usr/bin/env bash
# Packs the images that the node itself and Istio run: the pod sandbox, istiod, istio-cni and the sidecar, whose Envoy is the stock one.
# Nothing is pulled.
# Called by parts.sh, after it has built the programs: images.sh FOLDER-OF-THE-PARTS ISTIO-VERSION
set -euo pipefail
home=$1 istio=$2
cd "$(dirname "$0")/../.."
work=$(mktemp -d "$home/.part.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$home/images"

# with_libraries ROOT PROGRAM…: copies what these programs name.
with_libraries() {
    local root=$1 library
    shift
    for library in $(ldd "$@" 2>/dev/null | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | sort -u); do
        install -D -m 755 "$library" "$root$library"
    done
}

busybox() {
    local root=$1 applet
    install -D -m 755 /bin/busybox "$root/bin/busybox"
    for applet in sh sleep cat ls env id; do ln -sf busybox "$root/bin/$applet"; done
}

# pack NAME ROOT FILE CONFIG
pack() { python3 manifests/images/oci.py --name "sidestep.test/$1" --root "amd64=$2" --output "$home/images/$3.tar" --config "$4"; }

root=$work/pause
install -D -m 755 /bin/busybox "$root/bin/busybox"
pack pause:1 "$root" pause '{"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]}'
env='"Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"], "WorkingDir": "/"'

base=$work/base
mkdir -p "$base"/{etc/istio/proxy,tmp,var/lib/istio/data,run,usr/local/bin}
busybox "$base"
printf 'root:x:0:0::/:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n' >"$base/etc/passwd"
printf 'root:x:0:\nistio-proxy:x:1337:\n' >"$base/etc/group"
chmod 1777 "$base/tmp"
chmod 777 "$base/etc/istio/proxy" "$base/var/lib/istio/data" "$base/run"

root=$work/pilot
cp -a "$base" "$root"
cp "$home/bin/pilot-discovery" "$root/usr/local/bin/"
pack "istio/pilot:$istio" "$root" pilot "{\"Entrypoint\": [\"/usr/local/bin/pilot-discovery\"], \"User\": \"1337:1337\", $env}"

# With what writes rules.
tables=$work/tables
root=$tables
cp -a "$base" "$root"
mkdir -p "$root/usr/sbin"
cp -L /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/nft "$root/usr/sbin/"
for name in tables tables-save tables-restore; do
    for family in ip ip6; do
        ln -s xtables-nft-multi "$root/usr/sbin/$family$name"
        ln -s xtables-nft-multi "$root/usr/sbin/$family${name/tables/tables-nft}"
        ln -s xtables-legacy-multi "$root/usr/sbin/$family${name/tables/tables-legacy}"
    done
done
modules=$(dirname "$(find /usr/lib -name libxt_tcp.so | head -1)")
mkdir -p "$root$modules"
cp "$modules"/*.so "$root$modules/"
with_libraries "$root" "$root"/usr/sbin/{xtables-nft-multi,xtables-legacy-multi,nft} "$modules"/*.so

root=$work/cni
cp -a "$tables" "$root"
mkdir -p "$root/opt/cni/bin"
cp "$home/bin/install-cni" "$root/usr/local/bin/"
cp "$home/bin/istio-cni" "$root/opt/cni/bin/"
pack "istio/install-cni:$istio" "$root" cni "{\"Cmd\": [\"/usr/local/bin/install-cni\"], $env}"

root=$work/proxy
cp -a "$tables" "$root"
mkdir -p "$root/var/lib/istio/envoy"
cp "$home/bin/pilot-agent" .parts/bin/envoy "$root/usr/local/bin/"
cp "$home/envoy_bootstrap.json" "$root/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
with_libraries "$root" .parts/bin/envoy
pack "istio/proxyv2:$istio" "$root" proxy "{\"Entrypoint\": [\"/usr/local/bin/pilot-agent\"], $env}"
