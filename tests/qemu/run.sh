#!/usr/bin/env bash
# Runs a command as root on another kernel: a QEMU machine without a disk, whose initramfs holds the command, what it
# needs, and nothing that outlives it. Files lie in the guest where they lie here, so that a test binary made by cargo
# finds its fixtures and the programs it starts. Prints what the command prints and exits as it does.
#
#   tests/qemu/run.sh KERNEL [--with PATH]... [--programs] [--seconds N] [--memory MIB] [--count FILE]
#                      COMMAND [ARGUMENT]...
#
# KERNEL is a folder of .parts/kernels, which tests/setup.sh fills; one named arm64-… is for that architecture. COMMAND itself
# is taken along if it is a file; with --programs also the real programs whose connections are tested, as `tests/setup.sh
# programs` installs them. With --count the machine's clock counts its instructions, one a nanosecond, nothing in it depends on
# the machine outside, and FILE gets a line of instructions, of programs and of the kernel, for each mark that COMMAND passes:
# SIDESTEP_QEMU_PLUGIN is the plugin that counts, with its arguments (tests/instructions). What goes into a machine for arm64
# must be linked statically.
set -euo pipefail

usage() { sed -n '6,16s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fail() { printf 'qemu: %s\n' "$*" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
parts=$(cd "$here/../.." && pwd)/.parts
[ $# -ge 2 ] || usage
kernel=$parts/kernels/$1
shift
seconds=300 memory=2048 with=() programs= count=
while [ $# -gt 0 ]; do
    case $1 in
    --with) with+=("$2"); shift 2 ;;
    --programs) programs=1 memory=5000; shift ;;
    --seconds) seconds=$2; shift 2 ;;
    --memory) memory=$2; shift 2 ;;
    --count) count=$(realpath "$2"); shift 2 ;;
    --*) usage ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || usage
machine=x86_64
case $(basename "$kernel") in arm64-*) machine=aarch64 ;; esac
[ -e "$kernel/vmlinuz" ] || fail "no kernel in .parts/kernels/$(basename "$kernel"): run \`make setup\`"

scratch=$(mktemp -d "$parts/vm.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,etc,proc,sys,run,tmp,var,root}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
ln -s ../run "$root/var/run"

# Copies a file with the chain of symbolic links that leads to it and, of a program, its libraries; a folder as it is.
add() {
    local path target library
    path=$(realpath "$(dirname "$1")")/$(basename "$1")
    [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || return 0
    mkdir -p "$root$(dirname "$path")"
    if [ -L "$path" ]; then
        cp -P "$path" "$root$path"
        target=$(readlink "$path")
        case $target in /*) add "$target" ;; *) add "$(dirname "$path")/$target" ;; esac
    elif [ -d "$path" ]; then
        cp -a "$path" "$root$path"
    elif [ "$(head -c 4 "$path" | tr -d '\0')" != $'\x7fELF' ]; then
        cp "$path" "$root$path"
    else
        # Debug information is most of a debug build, and all of this has to fit into memory.
        "$machine-linux-gnu-strip" --strip-debug -o "$root$path" "$path" 2>/dev/null || cp "$path" "$root$path"
        for library in $(ldd "$path" 2>/dev/null | grep -o '/[^ ]*'); do add "$library"; done
    fi
}

if [ "$machine" = x86_64 ]; then
    add "$(command -v busybox)"
    add /bin/dash
    # Those tools of the host that tests use as they are; what is missing here is missing there.
    for tool in ip tc ss nft bpftool {iptables,ip6tables}{,-nft,-legacy}{,-save,-restore}; do
        path=$(command -v "$tool") && add "$path"
    done
    for plugins in /usr/lib/x86_64-linux-gnu/xtables; do [ ! -e "$plugins" ] || add "$plugins"; done
else
    tar -C "$kernel/tools" -c . | tar -C "$root" -x --keep-directory-symlink
fi
ln -s ../bin/busybox "$root/usr/sbin/modprobe"
# Not busybox's shell: it takes its own applets, such as `ip`, before the programs in PATH.
ln -sf dash "$root/usr/bin/sh"
cp /etc/passwd /etc/group "$root/etc/"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"

modules=$(echo "$kernel"/lib/modules/*)
inside=$root/usr/lib/modules/$(basename "$modules")
mkdir -p "$inside/kernel/drivers/net"
cp "$modules"/modules.* "$inside/"
cp -r "$modules"/kernel/{net,lib,crypto} "$inside/kernel/"
cp "$modules"/kernel/drivers/net/{veth,dummy,tun}.ko "$inside/kernel/drivers/net/"

for path in ${with[@]+"${with[@]}"}; do add "$path"; done
if [ -n "$programs" ]; then
    # Whole packages, for what programs read and load; of whichever version Debian has.
    packages=$(dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\n' 'nginx*' 'redis-*' 'postgresql-[1-9]*' 'postgresql-client-[1-9]*' \
        'openjdk-*-jre-headless' 'python3*-minimal' 'libpython3*-minimal' 'libpython3*-stdlib' python3-{grpcio,protobuf,six,websockets} |
        sed -n 's/^ii *//p')
    dpkg -L $packages | grep -E '^/(usr|etc)/' | grep -vE '^/usr/share/(doc|man|locale)/' | sort -u >"$scratch/files"
    tar -C / -c --no-recursion --ignore-failed-read -T "$scratch/files" 2>/dev/null | tar -C "$root" -x --keep-directory-symlink
    libraries=$(grep -E 'bin/|\.so' "$scratch/files" | { xargs ldd 2>/dev/null || true; } | grep -o '=> /[^ ]*' | cut -c4- | sort -u)
    for path in $libraries /usr/bin/{curl,java,python3} "$parts"/{bin/{envoy,sidestep-go},java} "$here/../programs"; do add "$path"; done
fi
if [ -f "$1" ]; then
    add "$1"
    set -- "$(realpath "$1")" "${@:2}"
fi
install -m 755 "$here/init" "$root/init"
mkdir -p "$root$PWD"
{
    printf 'cd %q\n' "$PWD"
    for name in CI RUST_BACKTRACE RUST_LOG RUST_TEST_THREADS ${!SIDESTEP_@}; do
        [ -z "${!name+set}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf '%q ' "$@"
} >"$root/command"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$scratch/initramfs"

# Emulated, so that it is the same everywhere; tests/setup.sh says which QEMU, and why. One processor: where one patches the kernel's code
# while another runs it (a static key, an fentry program), QEMU up to 10.0 at least may let the other run the trap that the patch is made
# by when it is gone, and Linux falls over that (seen in sched_clock_cpu, check_preempt_wakeup_fair and tcp_bpf_recvmsg).
# Programs that compile as they run, as Java, fall over the same.
processors=${SIDESTEP_QEMU_PROCESSORS-1}
accelerator=tcg,thread=multi counting=() append=
if [ -n "$count" ]; then
    # Without its fast string instructions, each step of which would count: Linux copies eight bytes an instruction then.
    : "${SIDESTEP_QEMU_CPU=max,-erms,-fsrm}"
    accelerator=tcg,thread=single append='nokaslr norandmaps transparent_hugepage=never'
    counting=(-icount shift=0,sleep=off,align=off -seed 1 -rtc base=2026-01-01,clock=vm -plugin "$SIDESTEP_QEMU_PLUGIN,out=$count")
fi
case $machine in
x86_64) emulated=(-cpu "${SIDESTEP_QEMU_CPU-max}") console=ttyS0 ;;
aarch64) emulated=(-machine virt -cpu max,pauth-impdef=on) console=ttyAMA0 ;;
esac
# `timeout` ends QEMU, its own child, if the guest hangs.
timeout --kill-after=5 "$seconds" "$parts/bin/qemu-system-$machine" -accel "$accelerator" "${counting[@]}" "${emulated[@]}" -smp "$processors" -m "$memory" \
    -nodefaults -no-user-config -display none -nic none -no-reboot -serial stdio \
    -kernel "$kernel/vmlinuz" -initrd "$scratch/initramfs" \
    -append "console=$console quiet panic=-1 random.trust_cpu=on $append ${SIDESTEP_QEMU_APPEND-}" </dev/null 2>"$scratch/qemu.log" |
    sed -u 's/\r//g' | tee "$scratch/console" | grep --line-buffered -v -e '^sidestep-vm: exit ' -e 'reboot: Power down$' && true
ended=${PIPESTATUS[0]}
code=$(sed -n 's/^sidestep-vm: exit \([0-9]*\)$/\1/p' "$scratch/console" | tail -1)
[ -n "$code" ] || { cat "$scratch/qemu.log" >&2; printf 'qemu: the machine ended without a result, QEMU with %s (124: it took more than %s s)\n' "$ended" "$seconds" >&2; }
exit "${code:-2}"
