#!/bin/sh
# Boots the lab's virtual machine. Runs as the first process of network, mount and PID namespaces of its own.
# usage: boot-vm.sh LAB ROOT_FILESYSTEM DATA nft|legacy|none containerd|overlay2|podman shared|alone
set -eu
lab=$1 root_filesystem=$2 data=$3 iptables_backend=$4 store=$5 home=$6
root=$lab/root

mount -t overlay vm -o "lowerdir=$root_filesystem,upperdir=$lab/upper,workdir=$lab/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
for folder in docker containers; do
    mkdir -p "$root/var/lib/$folder"
    mount --bind "$data" "$root/var/lib/$folder"
done
if [ "$store" = podman ] && [ -d "$root_filesystem-images" ]; then
    mkdir -p "$root/images"
    mount --bind -o ro "$root_filesystem-images" "$root/images"
fi
mkdir -p "$root$lab/shared"
if [ "$home" = shared ]; then
    # Docker Desktop shares the user's folders with its VM under the same paths.
    mount --bind "$lab/shared" "$root$lab/shared"
fi
echo 'nameserver 10.0.2.3' > "$root/etc/resolv.conf"
if [ -d "$lab/tls" ]; then cp -r "$lab/tls" "$root/etc/docker-tls"; fi

# A mere chroot would let `docker exec` land in the machine's root: runc joins the mount namespace's true root.
cd "$root"
mkdir -p old-root
pivot_root . old-root
umount --lazy /old-root

ip link set lo up
if [ "$store" = podman ]; then
    if [ -d /images ]; then
        printf '[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["/images/storage"]\n' \
            > /etc/containers/storage.conf
    fi
    if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi # both kinds of groups at once confuse it
    # It takes no --cgroup-parent, so what it takes for the root is the lab's own.
    for groups in /sys/fs/cgroup/*/; do
        mkdir -p "$groups${lab##*/}"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$groups$file" ] || cat "$groups$file" > "$groups${lab##*/}/$file"
        done
        mount --bind "$groups${lab##*/}" "$groups"
    done
    echo 1 > /proc/sys/net/ipv4/ip_forward
    export PODMAN_IGNORE_CGROUPSV1_WARNING=1
    mkdir -p /run/podman
    # It would raise these limits, which this machine may not allow even root.
    printf '[containers]\ndefault_ulimits = [%s]\n' "$(for limit in nofile nproc; do
            prlimit --raw --noheadings --output HARD "--$limit" | sed "s/.*/\"$limit=&:&\",/"; done)" \
        > /etc/containers/containers.conf
    # Once for the VM, at Podman's own place, and once for the Mac.
    # shellcheck disable=SC2016 # for the shell inside
    exec /usr/bin/tini -g -- sh -c 'podman system service --time=0 unix:///run/podman/podman.sock &
        podman system service --time=0 "unix://$1"' - "$lab/shared/docker.sock"
fi
if [ "$iptables_backend" = none ]; then
    echo 1 > /proc/sys/net/ipv4/ip_forward
    set -- --iptables=false
else
    update-alternatives --quiet --set iptables "/usr/sbin/iptables-$iptables_backend"
    set --
fi
if [ -d /etc/docker-tls ]; then
    set -- "$@" --host tcp://0.0.0.0:2376 --tlsverify --tlscacert /etc/docker-tls/ca.pem \
        --tlscert /etc/docker-tls/server.pem --tlskey /etc/docker-tls/server.key
fi
# Engines of before 28 do not know the option, and keep no images there.
if dockerd --help | grep -q -- --feature; then
    set -- "$@" --feature "containerd-snapshotter=$([ "$store" = containerd ] && echo true || echo false)"
fi
# As systemd does, it starts an engine anew that was ended while the machine runs on.
# shellcheck disable=SC2016 # for the shell inside
exec /usr/bin/tini-static -- sh -c 'trap "kill \$engine" TERM
    while "$@" & engine=$!; wait "$engine"; do :; done
    wait "$engine"' - \
    dockerd --log-level warn --cgroup-parent "/${lab##*/}" \
    "$@" \
    --host unix:///run/docker.sock --host "unix://$lab/shared/docker.sock"
