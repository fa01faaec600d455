#!/usr/bin/env bash
# scripts/download_kuairand.sh: KuaiRand-Pure (Gao et al., CIKM 2022; CC BY-SA 4.0) from Zenodo into
# $FIELDCTR_DATA/KuaiRand-Pure (else data/KuaiRand-Pure), 45 MB. For dataset=kuairand_pure. gzip's checksum is tested.
set -euo pipefail
. "$(dirname "$0")/fetch.sh"

fetch https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz KuaiRand-Pure.tar.gz
unpack KuaiRand-Pure.tar.gz KuaiRand-Pure
