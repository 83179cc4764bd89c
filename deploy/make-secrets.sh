#!/usr/bin/env bash
# Makes the folder of secrets that compose.yaml, the systemd units and the manifests read: random passwords, the access
# list of Redis with their hashes, and the address each part reaches Redis by. Overwrites nothing.
#   make-secrets.sh FOLDER [HOST:PORT of Redis, as the parts see it; default redis:6379]
set -euo pipefail
folder="${1:?give the folder to make}"
redis="${2:-redis:6379}"
here="$(cd "$(dirname "$0")" && pwd)"
[ ! -e "$folder" ] || { echo "make-secrets: $folder is there already: nothing was changed" >&2; exit 1; }

umask 077
mkdir -p "$folder"
password() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
hash() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

grep '^user ' "$here/users.acl" > "$folder/redis_acl"
for user in admin producer worker monitor flower; do
  secret="$(password)"
  sed -i "s/#${user^^}\b/#$(hash "$secret")/" "$folder/redis_acl"
  if [ "$user" = admin ]; then
    printf '%s\n' "$secret" > "$folder/redis_admin_password"
  else
    printf 'redis://%s:%s@%s/0\n' "$user" "$secret" "$redis" > "$folder/${user}_redis_url"
  fi
done
printf '{}\n' > "$folder/labrelay_destinations"
printf 'labrelay:%s\n' "$(password)" > "$folder/flower_basic_auth"
printf '%s\n' "$(password)" > "$folder/grafana_admin_password"
# Containers read them under users of their own; the folder itself keeps everybody else on the machine out.
chmod 644 "$folder"/*
echo "make-secrets: wrote $(ls "$folder" | wc -l) files to $folder; put what is secret in your destinations into $folder/labrelay_destinations"
