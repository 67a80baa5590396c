#!/usr/bin/env bash
# Makes the authority and the server's certificate that the TLS tests use. Nothing else trusts them.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$work/index"
cat >"$work/ca.conf" <<CONF
[ca]
default_ca = tests
[tests]
database = $work/index
new_certs_dir = $work
default_md = sha256
policy = any
rand_serial = yes
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
CONF
sign() { # name, signing options
    openssl ca -batch -notext -config "$work/ca.conf" -startdate 20200101000000Z -enddate 21200101000000Z \
        -in "$work/$1.csr" -out "$1.pem" -extensions "$1" "${@:2}"
}
for name in authority server; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config "$work/ca.conf" \
        -subj "/CN=$name.headrace.invalid" -keyout "$work/$name.key" -out "$work/$name.csr"
done
sign authority -selfsign -keyfile "$work/authority.key"
sign server -cert authority.pem -keyfile "$work/authority.key"
cp "$work/server.key" server.key
