#!/bin/bash
# Makes a .deb and a .rpm of a binary:  build.sh LENSFS VERSION FOLDER
# NFPM is the command that packs, by default the Makefile's.
set -eu -o pipefail
BINARY=$(readlink -f "$1") VERSION=$2
mkdir -p "$3"
folder=$(readlink -f "$3")
cd "$(dirname "$(readlink -f "$0")")/../.."
ARCH=$(go env GOARCH)
NFPM=${NFPM:-$(sed -n 's/^export NFPM := //p' Makefile)}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export ARCH BINARY VERSION WORK SOURCE_DATE_EPOCH

go run -tags man ./cmd/lensfs man "$WORK/man"
gzip -9n "$WORK"/man/*
for shell in bash zsh fish; do
	"$BINARY" completion $shell >"$WORK/$shell"
done
{
	printf 'lensfs (%s) unstable; urgency=medium\n\n' "$VERSION"
	git log --no-merges --format='  * %s' 2>/dev/null || echo '  * Of a tree without its history.'
	printf '\n -- lensfs maintainers <lensfs@localhost>  %s\n' "$(date -uR -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$WORK/changelog.gz"

for packager in deb rpm; do
	said=$($NFPM package --config share/package/nfpm.yaml --packager $packager --target "$folder" 2>&1) || { echo "$said" >&2; exit 1; }
done
ls "$folder"
