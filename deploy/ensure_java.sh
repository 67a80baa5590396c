#!/usr/bin/env bash
# TorchServe, one of the servers of `make test-servers`, runs on Java. Install Debian's if it is missing and this user may;
# otherwise print how to.
set -euo pipefail

if command -v java >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "The tests of model servers need Java 17 or newer on PATH; install it with this system's package manager." >&2
    exit 1
fi
if [[ $(id -u) -ne 0 ]]; then
    echo "The tests of model servers need Java: run 'sudo apt-get install default-jre-headless', then this command again." >&2
    exit 1
fi
echo "Installing Debian's default-jre-headless"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2 </dev/null
apt-get install --quiet=2 --yes --no-install-recommends default-jre-headless </dev/null >/dev/null
