#!/bin/sh
# Makes the secrets of a deployment, once: random, readable by their owner only, never overwritten.
# Usage: docker/secrets.sh [FOLDER]   (docker/secrets)
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"

random() { head -c 32 /dev/urandom | base64 | tr -d '\n=' | tr '/+' '_-'; }

# put FILE TEXT: writes a secret, whole or not at all.
put() {
    printf '%s' "$2" >"$folder/.new"
    mv "$folder/.new" "$folder/$1"
}

# keep FILE TEXT: writes a secret unless there is one.
keep() {
    if [ ! -e "$folder/$1" ]; then put "$1" "$2"; fi
}

keep avsa_admin_key "avsa_$(random)"
keep avsa_webhook_secret "$(random)"
# Both ends of Redis' password go together; the one that is looked for comes last.
if [ ! -e "$folder/avsa_redis_url" ]; then
    password=$(random)
    hash=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
    put redis_acl "user default off
user avsa on #$hash ~avsa:* &* +@all -@dangerous +config|get +info +keys
"
    put avsa_redis_url "redis://avsa:$password@redis:6379/0"
fi
# Containers run as users of their own, which have to read what is mounted: the folder keeps others out.
chmod 644 "$folder"/*
chmod 700 "$folder"
echo "Secrets are in $folder; the operator's API key is in $folder/avsa_admin_key."
