#!/bin/sh
# Installs hedgerow from the folder of this script, an unpacked release: program, manuals, completions, systemd units, the user
# `hedgerow`, and a config if there is none. Run it as root. It also upgrades: the running server continues. With DESTDIR it only
# writes files, below that folder.
set -eu
umask 022
from=$(cd "$(dirname "$0")" && pwd)
to=${DESTDIR:-}
config=$to/etc/hedgerow/config.toml

[ -n "$to" ] || [ "$(id -u)" = 0 ] || { echo "install.sh: run it as root" >&2; exit 1; }
if [ -z "$to" ] && [ -e /usr/bin/hedgerow ]; then
    echo "install.sh: /usr/bin/hedgerow is there; remove the package first: apt-get remove hedgerow" >&2
    exit 1
fi

mkdir -p "$to/usr/local/bin" "$to/etc/hedgerow"
# The new program gets its name when it is whole.
install -m 755 "$from/bin/hedgerow" "$to/usr/local/bin/hedgerow.new"
mv -f "$to/usr/local/bin/hedgerow.new" "$to/usr/local/bin/hedgerow"
cp -R "$from/lib" "$from/share" "$to/usr/local/"
if [ ! -e "$config" ]; then
    "$to/usr/local/bin/hedgerow" init resolver -o "$config"
    chmod 644 "$config"
fi
[ -z "$to" ] || exit 0

# The unit has DynamicUser=yes, and takes this user because of its name. Files with keys can belong to it.
id hedgerow >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin hedgerow
/usr/local/bin/hedgerow check -c "$config"
if [ ! -d /run/systemd/system ]; then
    echo "systemd does not run here. Start hedgerow with: hedgerow serve -c $config"
    exit 0
fi
systemctl daemon-reload
if systemctl --quiet is-active hedgerow.service; then
    # Without [supervisor] in its config the server stays what it is until a restart.
    systemctl kill --kill-whom=main --signal=USR2 hedgerow.service
    echo "hedgerow is upgraded. Its config: $config"
else
    systemctl enable --now hedgerow.service
    echo "hedgerow runs. Its config: $config"
fi
