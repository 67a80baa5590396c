#!/usr/bin/env bash
# Some tests connect to Postgres through pgbouncer. Install Debian's if it is missing and this user may; otherwise print how to.
set -euo pipefail

# Debian installs it in a folder that only root's PATH names.
if PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v pgbouncer >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "The tests need pgbouncer on PATH; install it with this system's package manager." >&2
    exit 1
fi
if [[ $(id -u) -ne 0 ]]; then
    echo "The tests need pgbouncer: run 'sudo apt-get install pgbouncer', then this command again." >&2
    exit 1
fi
echo "Installing Debian's pgbouncer"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 </dev/null
apt-get install --quiet=2 --yes --no-install-recommends pgbouncer </dev/null >/dev/null
