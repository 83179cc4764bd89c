#!/usr/bin/env bash
# What the viewers need from the system: a virtual display, OpenGL, Java and ImageJ.
set -euo pipefail
source "$(dirname "$0")/../support/packages.sh"
need test-viewers xvfb libgl1 libgl1-mesa-dri libegl1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 \
  libxcb-image0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-randr0 libdbus-1-3 libglib2.0-0 \
  libfontconfig1 default-jre imagej
