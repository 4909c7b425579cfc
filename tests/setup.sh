#!/bin/sh
# Installs the packages of packages.txt (with "test" as argument those of the tests too) and makes users
# and group.  Services of packages are kept from starting.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || exec sudo "$0" "$@"
kinds='runtime|build'
[ "${1:-}" = test ] && kinds='runtime|build|test'

other_mta() {
    dpkg-query -W -f '${Package} ${Status} ${Provides}\n' 2>/dev/null |
        awk '/ok installed/ && /mail-transport-agent/ && $1 != "postfix" && $1 != "posthorn" { print $1 }'
}
if [ "${1:-}" = test ]; then
    found=$(other_mta)
    if [ -n "$found" ]; then
        echo "setup: $found is installed as this machine's mail server; the tests need Postfix, which would remove it." >&2
        echo "setup: use another machine for 'make setup check'; 'make setup run' works here." >&2
        exit 1
    fi
fi

missing=
for p in $(awk -v k="^($kinds)\$" '$1 ~ k { print $2 }' packages.txt); do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=1
    fi
    trap '[ -z "$made" ] || rm -f $policy' EXIT
    apt-get -q update >/dev/null || true
    if command -v debconf-set-selections >/dev/null; then
        echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
    fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing >/dev/null
fi
if awk '$1 == "u" { print $2 }' conf/posthorn.sysusers | while read -r u; do getent passwd "$u" >/dev/null || echo missing; done | grep -q . ||
    ! getent group hornpost >/dev/null; then
    if command -v systemd-sysusers >/dev/null; then
        systemd-sysusers "$PWD/conf/posthorn.sysusers" 2>/dev/null
    else
        # no systemd on this machine: the same rows by hand
        awk '$1 == "u" { print $2 }' conf/posthorn.sysusers | while read -r u; do
            getent passwd "$u" >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$u"
        done
        getent group hornpost >/dev/null || groupadd --system hornpost
    fi
fi
