#!/usr/bin/env bash
# The browser tests drive Debian's Chromium. Install it if it is missing and this user may; otherwise print how to.
set -euo pipefail

if command -v chromium >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "The browser tests need Chromium on PATH as 'chromium'; install it with this system's package manager." >&2
    exit 1
fi
if [[ $(id -u) -ne 0 ]]; then
    echo "The browser tests need Chromium: run 'sudo apt-get install chromium', then 'make test-browser' again." >&2
    exit 1
fi
echo "Installing Debian's chromium"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 </dev/null
apt-get install --quiet=2 --yes --no-install-recommends chromium fonts-dejavu-core </dev/null >/dev/null
