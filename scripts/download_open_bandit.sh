#!/usr/bin/env bash
# scripts/download_open_bandit.sh: Open Bandit Dataset (Saito et al., arXiv 2008.07146; CC BY 4.0) from ZOZO Research
# into $FIELDCTR_DATA/open_bandit_dataset (else data/open_bandit_dataset): 413 MB, 11 GB unpacked. The checksums in the
# archive are tested.
set -euo pipefail
. "$(dirname "$0")/fetch.sh"

fetch https://research.zozo.com/data_release/open_bandit_dataset.zip open_bandit_dataset.zip
unpack open_bandit_dataset.zip open_bandit_dataset
