#!/bin/sh
# Boots systemd for a Mac of the lab, as the first process of a PID namespace, with a root of its own and the Mac's
# network. It sees no device and no kernel setting of this machine that it could change. What is in its /etc/systemd and
# /etc/udev stays over a reboot.
# usage: boot-computer.sh FOLDER GROUP
set -eu
if [ "$1" != inside ]; then
    groups=/sys/fs/cgroup
    if [ -d "$groups/unified" ]; then groups=$groups/unified; fi
    mkdir -p "$groups/$2"
    echo $$ > "$groups/$2/cgroup.procs"
    exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child --propagation private sh "$0" inside "$1"
fi
root=$2/root
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
cp --archive /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"

cd "$root"
mkdir -p old-root
pivot_root . old-root
umount --lazy /old-root
export container=lab
exec /usr/lib/systemd/systemd --log-target=journal --show-status=0
