#!/bin/bash
# Starts the image's own script with a password that nobody knows beforehand.
#
# The password is the Secret grafana-admin's if there is one, otherwise a random one. It is kept in
# FILE with the database that it belongs to: Grafana takes a password only when it makes that.
set -euo pipefail

file=/data/grafana-admin-password
given=${GF_SECURITY_ADMIN_PASSWORD:-}

if [ -n "$given" ] && [ "${#given}" -lt 12 ]; then
  echo "The password in the Secret grafana-admin has ${#given} characters. At least 12 are needed." >&2
  exit 1
fi

if [ ! -s "$file" ]; then
  if [ -z "$given" ]; then
    read -r first </proc/sys/kernel/random/uuid
    read -r second </proc/sys/kernel/random/uuid
    given=${first//-/}${second//-/}
    echo "There is no Secret grafana-admin: the password of the user admin is a random one."
  fi
  (umask 077 && printf '%s\n' "$given" >"$file.new" && mv "$file.new" "$file")
fi

read -r GF_SECURITY_ADMIN_PASSWORD <"$file"
export GF_SECURITY_ADMIN_PASSWORD
if [ -n "$given" ] && [ "$given" != "$GF_SECURITY_ADMIN_PASSWORD" ]; then
  echo "The Secret grafana-admin is newer than Grafana's database. It counts for a new pod only."
fi
echo "The password in force is in $file of this container."

# Of an earlier start of this container, were there one.
rm -f /tmp/ready
cd /otel-lgtm
exec ./run-all.sh
