#!/usr/bin/env bash
# Records examples/logs: starts a throw-away machine `web01` with sshd, nginx, sudo, cron and rsyslog,
# lets the hosts of traffic.py use and attack it for 25 minutes, and copies out its two log files.
#
#     sudo ./record.sh            # half an hour, Debian 12, writes ../logs
#     sudo ./record.sh 0.1        # a rehearsal at a tenth of the time
#
# The machine is an overlay of this one in its own mount, PID, IPC, UTS and network namespaces: packages,
# users, passwords and sudoers exist only in a tmpfs and are gone when the script ends, with every process
# (--kill-child). While traffic runs there is no interface to the outside.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=${RECORD_STAGE:-outside}
scale=${1:-1}

# Everything the recording needs; versions end up in logs/VERSIONS.
packages=(openssh-server openssh-client sshpass sudo rsyslog cron nginx-light curl wget w3m hydra gobuster
    dirb wfuzz sqlmap iproute2 procps less)

case $stage in
outside)
    if [[ $EUID != 0 ]]; then
        echo "record.sh: namespaces and an overlay need root: run it with sudo" >&2
        exit 1
    fi
    root=$(mktemp -d /tmp/web01.XXXXXX)
    trap 'rmdir "$root"' EXIT
    mkdir -p "$here/../logs"
    RECORD_STAGE=machine RECORD_ROOT=$root unshare --mount --propagation private --uts --ipc --pid --fork \
        --kill-child bash "$here/record.sh" "$scale"
    ;;

machine) # its own mounts: build the root file system, still with this machine's network for apt
    root=$RECORD_ROOT
    hostname web01
    mount -t tmpfs -o size=2g,mode=755 tmpfs "$root"
    mkdir "$root"/{upper,work,web01}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/web01"
    machine=$root/web01
    mount -t proc proc "$machine/proc"
    for dir in dev run tmp home mnt; do mount -t tmpfs -o mode=755 tmpfs "$machine/$dir"; done
    chmod 1777 "$machine/tmp"
    mkdir -p "$machine"/dev/{pts,shm} "$machine"/run/{sshd,netns,lock} "$machine"/mnt/{record,logs}
    mount -t devpts -o newinstance,ptmxmode=0666,gid=5,mode=620 devpts "$machine/dev/pts"
    ln -s pts/ptmx "$machine/dev/ptmx"
    ln -s /proc/self/fd "$machine/dev/fd"
    ln -s /proc/self/fd/0 "$machine/dev/stdin"
    while read -r name major minor; do mknod -m 666 "$machine/dev/$name" c "$major" "$minor"; done <<<'null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0'
    mount --bind -o ro "$here" "$machine/mnt/record"
    mount --bind "$here/../logs" "$machine/mnt/logs"
    printf '#!/bin/sh\nexit 101\n' >"$machine/usr/sbin/policy-rc.d" && chmod +x "$machine/usr/sbin/policy-rc.d"
    in_machine=(chroot "$machine" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TZ=UTC
        DEBIAN_FRONTEND=noninteractive)
    resolver=$(cat /etc/resolv.conf)
    rm -f "$machine/etc/resolv.conf"
    echo "$resolver" >"$machine/etc/resolv.conf"
    "${in_machine[@]}" sh -c 'apt-get -q update && apt-get -qy install --no-install-recommends "$@"' sh \
        "${packages[@]}" >"$machine/tmp/apt.log" 2>&1 || { tail "$machine/tmp/apt.log"; exit 1; }
    unshare --net "${in_machine[@]}" RECORD_STAGE=isolated bash /mnt/record/record.sh "$scale"
    ;;

isolated) # no way out from here on: configure, start the services, let the hosts act
    : >/etc/resolv.conf
    pam-auth-update --package --remove systemd # there is no logind for pam_systemd to talk to
    printf '127.0.0.1 localhost\n10.20.0.10 web01 www.example.internal\n' >/etc/hosts
    rm -f /etc/cron.d/* /etc/cron.daily/* /etc/cron.hourly/* /etc/sudoers.d/*
    rm -rf /var/log/nginx/* /var/log/auth.log
    touch /run/utmp
    echo 'Set disable_coredump false' >/etc/sudo.conf

    # A bridge is the switch; every host is a network namespace with one leg in it.
    ip link set lo up
    ip link add switch type bridge
    ip link set switch up
    host() { # NAME ADDRESS...
        local name=$1 address
        shift
        ip netns add "$name"
        ip link add "$name" type veth peer name eth0 netns "$name"
        ip link set "$name" master switch up
        ip -n "$name" link set lo up
        ip -n "$name" link set eth0 up
        for address; do ip -n "$name" address add "$address" dev eth0; done
        # Every network is on the link: there is no router to pass, and none to leave by.
        for address in 10.20.0.0/24 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24; do
            ip -n "$name" route replace "$address" dev eth0
        done
    }
    host web01 10.20.0.10/24
    host monitor 10.20.0.4/24
    host scanner 10.20.0.5/24
    host alice 10.20.0.21/24
    host bruno 10.20.0.22/24
    host carla 10.20.0.23/24
    host jump 10.20.0.30/24
    host ci 10.20.0.40/24
    host visitors 192.0.2.{14,37,58,91,120,166,203}/32
    host intruder 203.0.113.45/32
    host sweeper 198.51.100.77/32

    # Accounts. `backup` is Debian's own account; a job uses it by key, somebody gave it a weak password, and
    # its sudoers line allows more than its author meant: the way in.
    groupadd ops
    for user in alice bruno carla deploy; do useradd -m -s /bin/bash "$user"; done
    usermod -aG sudo alice
    usermod -aG ops bruno
    usermod -s /bin/bash backup
    rm -rf /var/backups && install -d -o backup -g backup /var/backups
    printf '%s\n' alice:Kiesel-Turm-81 bruno:vier-Linden-am-See carla:Nebel.Horn.552 backup:backup123 | chpasswd
    install -m 440 /dev/stdin /etc/sudoers.d/site <<'SUDOERS'
%ops    ALL=(root) /usr/bin/systemctl, /usr/sbin/nginx, /usr/bin/tail -n * /var/log/nginx/*
deploy  ALL=(root) NOPASSWD: /usr/sbin/nginx -s reload
backup  ALL=(root) NOPASSWD: /usr/bin/tar, /usr/bin/cat /var/log/*
SUDOERS
    printf 'MAILTO=""\n*/5 * * * * www-data test -f /srv/www/index.html\n17 * * * * root true\n' >/etc/cron.d/site
    mkdir -p /tmp/keys && chmod 700 /tmp/keys
    for user in alice bruno carla deploy backup; do
        ssh-keygen -q -t ed25519 -N '' -C "$user" -f "/tmp/keys/$user"
        home=$(getent passwd "$user" | cut -d: -f6)
        install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
        install -m 600 -o "$user" -g "$user" "/tmp/keys/$user.pub" "$home/.ssh/authorized_keys"
    done
    ssh-keygen -q -t ed25519 -N '' -C web01 -f /tmp/keys/host
    cat >/tmp/sshd_config <<'SSHD'
HostKey /tmp/keys/host
ListenAddress 10.20.0.10
UsePAM yes
KbdInteractiveAuthentication no
PrintMotd no
SSHD
    cat >/tmp/rsyslog.conf <<'RSYSLOG'
module(load="imuxsock" SysSock.RateLimit.Interval="0")
auth,authpriv.* action(type="omfile" file="/var/log/auth.log" template="RSYSLOG_FileFormat")
RSYSLOG
    /mnt/record/site.sh /srv/www
    cat >/tmp/nginx.conf <<'NGINX'
user www-data;
worker_processes 1;
daemon off;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    access_log /var/log/nginx/access.log combined;
    error_log /var/log/nginx/error.log;
    server {
        listen 10.20.0.10:80;
        server_name www.example.internal;
        root /srv/www;
        location = /healthz { return 200 "ok\n"; }
        location = /search { try_files /search.html =404; }
        location = /item { try_files /item.html =404; }
        location /private/ { return 403; }
    }
}
NGINX
    mkdir -p /var/log/nginx
    services=()
    start() { "$@" </dev/null >>/tmp/services.log 2>&1 & services+=($!); }
    start rsyslogd -n -f /tmp/rsyslog.conf -i /run/rsyslogd.pid
    sleep 1
    start nsenter --net=/run/netns/web01 /usr/sbin/sshd -D -f /tmp/sshd_config
    start nsenter --net=/run/netns/web01 nginx -c /tmp/nginx.conf
    start nsenter --net=/run/netns/web01 cron -f
    sleep 1

    /usr/bin/python3 /mnt/record/traffic.py "$scale" || failed=1

    kill "${services[@]}" || true
    sleep 2
    cp /var/log/auth.log /var/log/nginx/access.log /mnt/logs/
    chmod 644 /mnt/logs/*.log
    dpkg-query -W -f '${Package} ${Version}\n' "${packages[@]}" >/mnt/logs/VERSIONS
    exit "${failed:-0}"
    ;;
esac
