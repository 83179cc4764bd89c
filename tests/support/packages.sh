# shellcheck shell=bash
# Sourced by the prepare.sh of each group of tests: Debian packages that its tests use from the system.

# need NAME PACKAGE...: installs what is missing where it may, and says under NAME what it does. It never fails: a test
# that misses something is skipped by name, and fails where CI is set.
need() {
  local name="$1" package missing=""
  shift
  command -v dpkg-query >/dev/null || { echo "$name: not a Debian system; what is missing is skipped by name"; return 0; }
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "$name: run as root: apt-get install$missing; what is missing is skipped by name"
    return 0
  fi
  echo "$name: installing$missing"
  # shellcheck disable=SC2086  # one word each
  if ! { packages update && packages install -y --no-install-recommends $missing; } >/dev/null; then
    echo "$name: apt-get could not install$missing; what is missing is skipped by name"
  fi
}

# A fresh machine often installs its own updates at this moment: its turn is waited for.
packages() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }
