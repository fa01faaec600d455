#!/usr/bin/env bash
# scripts/download_amazon_2023.sh [CATEGORY ...]: Amazon Reviews 2023 (Hou et al., arXiv 2403.03952) from the McAuley
# Lab, UC San Diego, into $FIELDCTR_DATA/amazon_2023 (else data/amazon_2023); by default LLaCTR's three categories.
# Terms: https://amazon-reviews-2023.github.io states no licence and asks to cite the paper. It gives no md5 sums:
# gzip's own checksum is tested.
set -euo pipefail
. "$(dirname "$0")/fetch.sh"

from=https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw
[ $# -gt 0 ] || set -- Gift_Cards Digital_Music Video_Games
for category in "$@"; do
    fetch "$from/review_categories/$category.jsonl.gz" "amazon_2023/$category.jsonl.gz"
    fetch "$from/meta_categories/meta_$category.jsonl.gz" "amazon_2023/meta_$category.jsonl.gz"
done
