#!/usr/bin/env bash
# What the tests of deploy/ need from the system. What is missing is skipped by name, except in CI.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/support/packages.sh
TOOLS="$PWD/build/deploy-tools"
# Unpacked into build/, so that no service of theirs starts. package:what it brings
UNPACKED="prometheus:promtool"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
  echo "deploy-tools: not a Debian system; what is missing is skipped by name"; exit 0; }

mkdir -p "$TOOLS"
for entry in $UNPACKED; do
  package="${entry%%:*}" tool="${entry##*:}"
  [ -x "$TOOLS/usr/bin/$tool" ] && continue
  command -v "$tool" >/dev/null && continue
  echo "deploy-tools: unpacking $package"
  folder="$(mktemp -d)"
  fetch() { (cd "$folder" && apt-get download -qq "$package" >/dev/null 2>&1); }
  fetch || { [ "$(id -u)" = 0 ] && packages update >/dev/null && fetch; } || true
  for file in "$folder"/*.deb; do
    [ -e "$file" ] && dpkg-deb -x "$file" "$TOOLS" || echo "deploy-tools: $package cannot be had; what needs $tool is skipped by name"
  done
  rm -rf "$folder"
done

# A current Redis with Sentinel and TLS, network namespaces, systemd-analyze.
need deploy-tools redis-server iproute2 systemd openssl
