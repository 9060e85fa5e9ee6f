#!/usr/bin/env bash
# Copies of a broker, each to a medium of its own.  Nothing here needs the broker to stop.
#
#   backup.sh night TO   the database, the vault and the spool: every night, after the run; kept as long as agreed
#   backup.sh hour  TO   what was erased (tombstones) and the signer's folder: every hour, the newest copy alone
#   backup.sh keys  TO   the broker's keys: once they are made, and after each rotation; offline, in a safe
#
# Never keep `keys` with `night`: together they open everything.  Never put `hour` back from an older copy: it is what
# keeps an old `night` from bringing back a child who was erased, and the log from being cut.
# Says what it is told by the environment: DATABASE (a libpq address of the tables' owner), DATA_DIR, SIGNER_DIR.
set -euo pipefail
umask 077
what=${1:?night, hour or keys} to=${2:?the folder that the copy goes into}
data=${DATA_DIR:-/var/lib/broker} signer=${SIGNER_DIR:-/var/lib/broker-signer}
part="$to/.part.$$"
trap 'rm -rf "$part"' EXIT
mkdir -p "$part"

copy() { # a folder that may not be there
  if [ -d "$1" ]; then mkdir -p "$2" && cp -a "$1/." "$2/"; fi
}

case $what in
  night)
    # Segments are never changed.  Copied before and after the dump, all that the dump points to is there.
    copy "$data/vault" "$part/vault"
    pg_dump --dbname="${DATABASE:?a libpq address}" --format=custom --no-owner --no-privileges \
      --file="$part/database.dump"
    copy "$data/vault" "$part/vault"
    copy "$data/spool" "$part/spool"
    ;;
  hour)
    copy "$data/erased" "$part/erased"
    copy "$signer" "$part/signer"
    ;;
  keys)
    copy "$data/keys" "$part/keys"
    ;;
  *)
    echo "backup.sh: night, hour or keys" >&2
    exit 2
    ;;
esac
(cd "$part" && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0r sha256sum > SHA256SUMS)
find "$part" -type f -exec sync -d {} +
if [ "$what" = hour ] && [ -d "$to/hour" ]; then
  rm -rf "$to/hour.before"
  mv "$to/hour" "$to/hour.before"
fi
name=$what
[ "$what" = hour ] || name="$what-$(date -u +%Y%m%dT%H%M%SZ)"
mv "$part" "$to/$name"
echo "$to/$name"
