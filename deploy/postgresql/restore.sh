#!/usr/bin/env bash
# Put a broker back on an empty host, from what backup.sh copied:
#
#   restore.sh NIGHT HOUR KEYS
#
# NIGHT may be any night; HOUR must be the newest there is, else a child who was erased since could come back.
# Says what it is told by the environment: DATABASE (a libpq address of the owner, an empty database), DATA_DIR,
# SIGNER_DIR.  Nothing that is there is overwritten.  What follows is in deploy/RUNBOOK.md, under Restore.
set -euo pipefail
umask 077
night=${1:?the folder of a night} hour=${2:?the newest folder of an hour} keys=${3:?the folder of the keys}
data=${DATA_DIR:-/var/lib/broker} signer=${SIGNER_DIR:-/var/lib/broker-signer}

refuse() {
  echo "restore.sh: $1" >&2
  exit 1
}

for copy in "$night" "$hour" "$keys"; do
  [ -s "$copy/SHA256SUMS" ] || refuse "$copy is no whole copy: SHA256SUMS is missing"
  (cd "$copy" && sha256sum --quiet --check SHA256SUMS) || refuse "$copy has been changed, or is torn"
done
for folder in "$data" "$signer"; do
  [ -z "$(ls -A "$folder" 2>/dev/null)" ] || refuse "$folder is not empty"
done
tables=$(psql --no-psqlrc --dbname="${DATABASE:?a libpq address}" --tuples-only --no-align \
  --command="SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
[ "$tables" = 0 ] || refuse "the database is not empty"

pg_restore --dbname="$DATABASE" --exit-on-error --single-transaction --no-owner --no-privileges "$night/database.dump"
mkdir -p "$data" "$signer"
for part in vault spool; do
  if [ -d "$night/$part" ]; then cp -a "$night/$part" "$data/"; fi
done
if [ -d "$hour/erased" ]; then cp -a "$hour/erased" "$data/"; fi
if [ -d "$hour/signer" ]; then cp -a "$hour/signer/." "$signer/"; fi
cp -a "$keys/keys" "$data/"
echo "restored; now: broker log status"
