#!/usr/bin/env bash
# scripts/download_taobao.sh LINK LINK LINK [LINK]: Ad Display/Click Data on Taobao.com from Tianchi into $FIELDCTR_DATA/taobao
#(else data/taobao). Tianchi gives its links to who is logged in and agrees to its terms, for some hours:
#   1. log in at https://tianchi.aliyun.com/dataset/56 and read the terms,
#   2. copy the download links of raw_sample.csv.tar.gz, ad_feature.csv.tar.gz, user_profile.csv.tar.gz,
#      and for dataset=taobao_behavior of behavior_log.csv.tar.gz,
#   3. call this script with the links in quotes; a broken download goes on where it stopped.
# Tianchi gives no md5 sums; gzip's checksum is tested.
set -euo pipefail
. "$(dirname "$0")/fetch.sh"

if [ $# -lt 3 ] || [ $# -gt 4 ]; then sed -n '2,8s/^# //p' "$0" >&2; exit 2; fi
for link in "$@"; do
    archive=$(basename "${link%%\?*}")
    fetch "$link" "taobao/$archive"
    part=$(mktemp -d "$data/taobao/.part.XXXX")
    tar --extract --gzip --file "$data/taobao/$archive" --directory "$part"
    mv "$part"/* "$data/taobao"
    rmdir "$part"
done
