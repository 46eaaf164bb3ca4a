#!/bin/sh
# Runs on a machine that systemd has booted: installs the package of /package, and reports what comes of it as lines
# NAME=VALUE. The test packages::systemd::service_runs_under_systemd says what they must be.
say() { echo "$1=$2"; }
main() { systemctl show --property MainPID --value keyway; }
status() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(main)/status"; }
# Waits until another process than this one serves.
replaced() {
    tries=0
    until [ "$(main)" != "$1" ] && [ "$(systemctl is-active keyway)" = active ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 150 ] || return 1
        sleep 0.1
    done
    echo yes
}

dpkg --install /package/*.deb 2>&1
say installed "$(systemctl is-active keyway)"
say enabled "$(systemctl is-enabled keyway)"
say told "$(systemctl show --property StatusText --value keyway)"
say ready "$(keyway healthcheck && echo yes)"
say user "$(stat -c %U "/proc/$(main)")"
say capabilities "$(status CapEff)"
say new_privileges "$(status NoNewPrivs)"
say seccomp "$(status Seccomp)"
say data "$(stat -c '%U %a' /var/lib/keyway)"
say secret_in_journal "$(journalctl --unit keyway | grep -c -f /etc/keyway/passphrase -e 'SECRET_ACCESS_KEY')"
# A command of the operator, as the installation page has it.
say command "$(setpriv --reuid keyway --regid keyway --init-groups keyway access-key create \
    --config /etc/keyway/keyway.toml --policy kms-admin --output json | grep -c secret_access_key)"

first=$(main)
systemctl reload keyway
say reloaded "$([ "$(main)" = "$first" ] && systemctl is-active keyway)"
systemctl kill --signal KILL keyway
say after_kill "$(replaced "$first")"

# The watchdog of a process that hangs.
mkdir -p /etc/systemd/system/keyway.service.d
printf '[Service]\nWatchdogSec=1s\n' >/etc/systemd/system/keyway.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart keyway
sleep 3
say watched "$(systemctl show --property NRestarts --value keyway)"
first=$(main)
kill -STOP "$first"
say after_hang "$(replaced "$first")"
rm /etc/systemd/system/keyway.service.d/watchdog.conf

# TLS, with a key that only root can read.
mkdir /etc/keyway/tls
keyway identity new --kind ecdsa --cert /etc/keyway/tls/certificate.pem --key /etc/keyway/tls/key.pem >/dev/null
cp /usr/share/doc/keyway/examples/tls.conf /etc/systemd/system/keyway.service.d/tls.conf
echo KEYWAY_LISTEN=:9443 >>/etc/default/keyway
systemctl daemon-reload
systemctl restart keyway
say tls_key "$(stat -c '%U %a' /etc/keyway/tls/key.pem)"
say tls "$(keyway healthcheck --listen :9443 --tls-cert /etc/keyway/tls/certificate.pem && echo yes)"

before=$(cat /etc/keyway/passphrase)
dpkg --install --force-confold /package/*.deb 2>&1
say updated "$(systemctl is-active keyway)"
say same_passphrase "$([ "$(cat /etc/keyway/passphrase)" = "$before" ] && echo yes)"

systemctl stop keyway
say stopped "$(systemctl show --property Result --value keyway)"
dpkg --purge keyway 2>&1
say purged "$(systemctl is-active keyway)"
say kept "$(ls /var/lib/keyway/keyway.db)"
journalctl --unit keyway --no-pager
systemctl poweroff
