#!/usr/bin/env bash
# Makes the certificates of the tests anew, valid for a hundred years. They are checked in, so that no test needs openssl, and
# the simulated world signs the same bytes each time (Ed25519: a signature of ECDSA varies in length). For tests alone: the
# keys are public.
#
#   ca.pem            whom the tests trust (P-256)
#   ed25519.pem .key  localhost, 127.0.0.1, ::1: Ed25519
#   p256.pem .key     the same: P-256
#   rsa.pem .key      the same: RSA-2048
#   other.pem         other.example: another name (with p256.key)
#   expired.pem       localhost, until 2021-01-01; future.pem: from 2100-01-01 on (both with p256.key)
#   stranger.pem      localhost, of an issuer whom nobody knows (with p256.key)
#   client.pem .key   a client of the name "client": Ed25519
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { # NAME ALGORITHM
    case $2 in
        ed25519) openssl genpkey -quiet -algorithm ed25519 -out "$1.key" ;;
        p256) openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" ;;
        rsa) openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key" ;;
    esac
}

# CERTIFICATE KEY SUBJECT NAMES USE [FROM UNTIL] [CA]
certificate() {
    local from=${6:-20200101000000Z} until=${7:-21200101000000Z} ca=${8:-$work/ca}
    cat >"$work/extensions" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $5
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
${4:+subjectAltName = $4}
END
    : >"$work/index.txt"
    openssl req -new -key "$2.key" -subj "/CN=$3" -out "$work/request"
    openssl ca -batch -notext -config "$work/config" -cert "$ca.pem" -keyfile "$ca.key" -in "$work/request" \
        -startdate "$from" -enddate "$until" -extfile "$work/extensions" -out "$1.pem" 2>"$work/errors" || {
        cat "$work/errors" >&2
        return 1
    }
}

cat >"$work/config" <<END
[ca]
default_ca = it
[it]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
END

for ca in ca stranger; do
    : >"$work/index.txt"
    printf 'basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n' \
        >"$work/extensions"
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$ca.key"
    openssl req -new -key "$work/$ca.key" -subj "/CN=mainspring tests: $ca" -out "$work/request"
    openssl ca -batch -notext -config "$work/config" -selfsign -keyfile "$work/$ca.key" -in "$work/request" \
        -startdate 20200101000000Z -enddate 21200101000000Z -extfile "$work/extensions" -out "$work/$ca.pem" 2>/dev/null
done
cp "$work/ca.pem" ca.pem

names=DNS:localhost,IP:127.0.0.1,IP:::1
key ed25519 ed25519
key p256 p256
key rsa rsa
key client ed25519
certificate ed25519 ed25519 localhost $names serverAuth
certificate p256 p256 localhost $names serverAuth
certificate rsa rsa localhost $names serverAuth
certificate other p256 other.example DNS:other.example serverAuth
certificate expired p256 localhost $names serverAuth 20200101000000Z 20210101000000Z
certificate future p256 localhost $names serverAuth 21000101000000Z 21200101000000Z
certificate stranger p256 localhost $names serverAuth 20200101000000Z 21200101000000Z "$work/stranger"
certificate client client client '' clientAuth
