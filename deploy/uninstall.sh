#!/bin/sh
# Removes the files, the user and the saved data that install.sh beside this script made. Run it as root. A config that has changed
# since stays, unless the argument is --purge. With DESTDIR it only removes files below that folder.
set -eu
from=$(cd "$(dirname "$0")" && pwd)
to=${DESTDIR:-}
config=$to/etc/hedgerow/config.toml

[ -n "$to" ] || [ "$(id -u)" = 0 ] || { echo "uninstall.sh: run it as root" >&2; exit 1; }
if [ -z "$to" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now hedgerow.service hedgerow.socket || true
fi
if [ "${1:-}" = --purge ] || "$from/bin/hedgerow" init resolver | cmp -s - "$config"; then
    rm -f "$config"
    rmdir "$to/etc/hedgerow" 2>/dev/null || true
elif [ -e "$config" ]; then
    echo "$config has changed and stays; --purge removes it"
fi
cd "$from"
find bin lib share -type f -exec sh -c 'to=$1; shift; for file; do rm -f "$to/$file"; done' sh "$to/usr/local" {} +
# Folders that other programs use are not empty; Debian has an empty one for manuals.
find lib share -mindepth 1 -depth -type d ! -path share/man \
    -exec sh -c 'to=$1; shift; for folder; do rmdir "$to/$folder" 2>/dev/null; done; true' sh "$to/usr/local" {} +
[ -z "$to" ] || exit 0

rm -rf /var/lib/private/hedgerow /var/lib/hedgerow
if id hedgerow >/dev/null 2>&1; then userdel hedgerow; fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
echo "hedgerow is removed"
