#!/usr/bin/env bash
# Copies Redis's append-only file while it runs: the ledger, whole.
#   REDISCLI_AUTH=<password of admin> backup.sh DIR_OF_REDIS TARGET [HOST] [PORT]
# A rewrite of the file in the midst of the copy would mix two of them: it is held back meanwhile. An unfinished write at
# the end is dropped when the copy is read (aof-load-truncated).
set -euo pipefail
source="${1:?give the folder of Redis (its setting dir)}"; target="${2:?give a folder to make}"
host="${3:-127.0.0.1}"; port="${4:-6379}"
cli() { redis-cli --no-auth-warning --user admin -h "$host" -p "$port" "$@"; }

[ ! -e "$target" ] || { echo "backup: $target is there already: nothing was copied" >&2; exit 1; }
percentage="$(cli config get auto-aof-rewrite-percentage | tail -1)"
trap 'cli config set auto-aof-rewrite-percentage "$percentage" >/dev/null' EXIT
[ "$(cli config set auto-aof-rewrite-percentage 0)" = OK ] || { echo "backup: Redis refuses" >&2; exit 1; }
while cli info persistence | grep -q -e 'aof_rewrite_in_progress:1' -e 'aof_rewrite_scheduled:1'; do sleep 0.2; done

umask 077
mkdir -p "$target"
# Redis 7 keeps a folder of files, older ones a single file.
for name in appendonlydir appendonly.aof; do
  [ ! -e "$source/$name" ] || cp -a "$source/$name" "$target/"
done
[ -n "$(ls "$target")" ] || { echo "backup: there is no append-only file in $source" >&2; exit 1; }
echo "backup: $(du -sh "$target" | cut -f1) in $target"
