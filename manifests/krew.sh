#!/usr/bin/env bash
# Makes, of the programs of a release, what krew installs as `kubectl sidestep`: an archive for each architecture, and the manifest that
# names them. The same programs give the same bytes.
#   manifests/krew.sh FOLDER VERSION RELEASES
# FOLDER holds sidestep-linux-ARCHITECTURE and LICENSE, and gets kubectl-sidestep-linux-ARCHITECTURE.tar.gz and krew.yaml. RELEASES is the URL
# under which a release's files will be, as RELEASES/vVERSION/FILE.
set -euo pipefail

fail() { printf 'krew: %s\n' "$*" >&2; exit 1; }
[ $# -eq 3 ] || fail "give FOLDER VERSION RELEASES"
folder=$1 version=$2 releases=${3%/}
case $releases in https://?*) ;; *) fail "RELEASES is $3: it must begin with https://, which is what krew fetches from" ;; esac
programs=$(cd "$folder" && ls sidestep-linux-* 2>/dev/null) || fail "no sidestep-linux-ARCHITECTURE in $folder"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
install -m 644 "$folder/LICENSE" "$scratch/LICENSE"
platforms=
for program in $programs; do
    architecture=${program#sidestep-linux-}
    archive=kubectl-$program.tar.gz
    install -m 755 "$folder/$program" "$scratch/kubectl-sidestep"
    tar -C "$scratch" --owner=0 --group=0 --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" -c LICENSE kubectl-sidestep | gzip -n >"$folder/$archive"
    sum=$(sha256sum "$folder/$archive" | cut -d' ' -f1)
    platforms+="
    - selector: {matchLabels: {os: linux, arch: $architecture}}
      uri: $releases/v$version/$archive
      sha256: $sum
      bin: kubectl-sidestep"
done
cat >"$folder/krew.yaml" <<END
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata: {name: sidestep}
spec:
  version: v$version
  shortDescription: Check and watch Sidestep in a cluster
  description: |
    Sidestep takes the iptables out of service mesh sidecars. This checks whether a cluster can run it and does, shows which pods
    are accelerated, which are left alone and why, explains where a connection goes, and collects what a bug report needs.
  platforms:$platforms
END
