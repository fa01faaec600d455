#!/usr/bin/env bash
# scripts/download_movielens.sh [latest-small | 100k | 1m | 20m ...]: MovieLens from GroupLens, University of Minnesota,
# into $FIELDCTR_DATA (else data); by default 1m. Terms are in each archive: research, no redistribution, cite Harper and
# Konstan, TiiS 2015. The md5 sums are those of GroupLens.
set -euo pipefail
. "$(dirname "$0")/fetch.sh"

from=https://files.grouplens.org/datasets/movielens
[ $# -gt 0 ] || set -- 1m
for size in "$@"; do
    case $size in
        latest-small) folder=movielens_latest_small md5= ;; # it changes: no fixed sum
        100k) folder=ml-100k md5=0e33842e24a9c977be4e0107933c0723 ;;
        1m) folder=ml-1m md5=c4d9eecfca2ab87c1945afe126590906 ;;
        20m) folder=ml-20m md5=cd245b17a1ae2cc31bb14903e1204af3 ;;
        *) echo "no MovieLens '$size': latest-small, 100k, 1m or 20m" >&2; exit 2 ;;
    esac
    fetch "$from/ml-$size.zip" "ml-$size.zip" "$md5"
    unpack "ml-$size.zip" "$folder"
done
