#!/usr/bin/env bash
# What the integration tests use from the system where it is there: a browser that looks at Flower.
set -euo pipefail
source "$(dirname "$0")/../support/packages.sh"
need test chromium fonts-dejavu-core
