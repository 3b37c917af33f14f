#!/usr/bin/env bash
# Makes the disks of the field lab's machines, out of Debian's packages, into .parts/field: for each a system disk that runs never
# change, and what starts it. What differs from run to run is on a second disk, which sidestep-cluster makes.
#   field.sh debian-13         Debian 13 with Linux 6.12
#   field.sh debian-12         Debian 12 with Linux 6.1
#   field.sh debian-13-backports     Debian 13 with Linux 7.3
# Called by `tests/setup.sh field`. Three minutes for the first of a Debian, seconds for another kernel, nothing when it is there.
set -euo pipefail
cd "$(dirname "$0")/../.."

PACKAGES=systemd,systemd-sysv,dbus,udev,kmod,apparmor,procps,iproute2,iptables,nftables,containerd,runc,containernetworking-plugins,conntrack

home=$PWD/.parts/field
files=$PWD/tests/cluster/field

say() { printf 'field: %s\n' "$*"; }
fail() { printf 'field: %s\n' "$*" >&2; exit 1; }

mkdir -p "$home"
exec 8>"$home/lock"
flock 8
# What an interrupted run left.
rm -rf "$home"/.part.*
work=$(mktemp -d "$home/.part.XXXXXX")
trap 'rm -rf "$work"' EXIT

stamped() { [ "$(cat "$home/$1.stamp" 2>/dev/null)" = "$2" ]; }
stamp() {
    echo "$2" >"$work/stamp"
    mv "$work/stamp" "$home/$1.stamp"
}

# system SUITE: a Debian in a folder. apt checks its signatures, and the archive comes from where this machine has its own.
system() {
    local suite=$1 pins="$PACKAGES 1" mirror began=$SECONDS
    ! stamped "$suite" "$pins" || return 0
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        sed -n "s/ $(. /etc/os-release && echo "$VERSION_CODENAME") main\$//p" | head -1)
    [ -n "$mirror" ] || fail "no Debian mirror is known: apt's sources name none for this Debian"
    say "making a Debian ($suite)"
    local without=() folder
    for folder in doc man locale info; do without+=(--dpkgopt="path-exclude=/usr/share/$folder/*"); done
    # In namespaces of its own, so that neither a mount nor a process of it is left, however it ends.
    unshare --mount --pid --fork --kill-child --mount-proc \
        mmdebstrap --mode=root --variant=essential --quiet "${without[@]}" --include="$PACKAGES" \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$work/root" "$mirror" >"$work/log" 2>&1 ||
        { tail -5 "$work/log" >&2; fail "mmdebstrap could not make it"; }
    rm -rf "${home:?}/$suite"
    mv "$work/root" "$home/$suite"
    stamp "$suite" "$pins"
    say "made the Debian ($suite) in $((SECONDS - began)) s"
}

# initramfs RELEASE MODULES FILE: finds the disk and goes on from there, whatever of it is a module of this kernel.
initramfs() {
    local release=$1 modules=$2 root=$work/initramfs module
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,modules,root}
    cp /bin/busybox "$root/bin/"
    ln -s busybox "$root/bin/sh"
    {
        echo '#!/bin/sh'
        echo '/bin/busybox mount -t devtmpfs devtmpfs /dev'
        # In the order in which they need each other.
        for module in virtio_pci virtio_blk ext4; do
            modprobe --dirname "$modules" --set-version "$release" --show-depends "$module"
        done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r module; do
            cp "$module" "$root/modules/"
            echo "/bin/busybox insmod /modules/$(basename "$module")"
        done
        # The devices of a module that is there may take a moment.
        echo 'until [ -b /dev/vda ]; do /bin/busybox usleep 10000; done'
        echo '/bin/busybox mount -t ext4 /dev/vda /root && exec /bin/busybox switch_root /root /sbin/init'
    } >"$root/init"
    chmod 755 "$root/init"
    (cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$3"
}

# machine NAME SUITE KERNEL
machine() {
    local name=$1 suite=$2 kernel=$PWD/.parts/kernels/$3 root=$home/$2 release modules pins
    [ -e "$kernel/vmlinuz" ] || fail "no kernel in .parts/kernels/$3: run \`make setup\`"
    system "$suite"
    release=$(basename "$kernel"/lib/modules/*)
    pins=$({ cat "$home/$suite.stamp" "$0" "$files"/*; echo "$release"; } | sha256sum | cut -d' ' -f1)
    ! stamped "$name" "$pins" || return 0
    say "making the disk of $name"
    rm -rf "$root"/usr/lib/modules
    mkdir -p "$root/usr/lib/modules" "$work/disk" "$root/data"
    cp -r "$kernel/lib/modules/$release" "$root/usr/lib/modules/"
    cp "$files/fstab" "$root/etc/fstab"
    cp "$files/resolv.conf" "$root/etc/resolv.conf"
    cp "$files/containerd.toml" "$root/etc/containerd/config.toml"
    cp "$files"/*.service "$files"/*.socket "$root/etc/systemd/system/"
    local unit
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    for unit in kubelet.service kube-proxy.service shell.socket; do
        ln -sf "../$unit" "$root/etc/systemd/system/multi-user.target.wants/$unit"
    done
    # What a node does without, for emulated it takes a minute: profiles of programs that are not there, consoles, screens, timers.
    find "$root/etc/apparmor.d" -maxdepth 1 -type f -delete
    for unit in modprobe@{configfs,efi_pstore,fuse,drm}.service {getty@tty1,serial-getty@ttyS0,systemd-logind,systemd-pstore}.service \
        {fstrim,dpkg-db-backup,apt-daily,apt-daily-upgrade,e2scrub_all}.timer remote-fs.target; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    # The name is the run's; an empty id is made anew at each first start.
    rm -f "$root/etc/hostname"
    : >"$root/etc/machine-id"
    mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$root" "$work/disk/system.img" 2G >/dev/null
    initramfs "$release" "$kernel" "$work/disk/initramfs"
    cp "$kernel/vmlinuz" "$work/disk/vmlinuz"
    rm -rf "${home:?}/$name"
    mv "$work/disk" "$home/$name"
    stamp "$name" "$pins"
}

for name; do
    case $name in
    debian-13) machine "$name" trixie 6.12.117 ;;
    debian-12) machine "$name" bookworm 6.1 ;;
    debian-13-backports) machine "$name" trixie 7.3 ;;
    *) fail "there is no machine $name (debian-13, debian-12, debian-13-backports)" ;;
    esac
done
