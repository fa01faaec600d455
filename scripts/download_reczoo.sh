#!/usr/bin/env bash
# RecZoo's fixed splits of public benchmarks, from the Hugging Face hub into ${FIELDCTR_DATA:-data}/reczoo.
#
#   scripts/download_reczoo.sh Frappe_x1 [Criteo_x4 ...]      without a name: what there is
#
# A download that was cut goes on where it stopped. A folder gets its name once all files have the md5 that conf/dataset
# gives. The terms of the original publishers hold: the first lines of each conf/dataset/*.yaml say whose they are.
set -euo pipefail

conf="$(cd "$(dirname "$0")/.." && pwd)/conf/dataset"
root="${FIELDCTR_DATA:-data}/reczoo"
hub="${RECZOO_HUB:-https://huggingface.co/datasets/reczoo}"

names() { sed -nE 's|^raw_dir: .*/reczoo/(.+)$|\1|p' "$conf"/*.yaml | sort -u | paste -sd ' '; }

# "md5  file" for each file of a data set
sums() { grep -lE "^raw_dir: .*/reczoo/$1$" "$conf"/*.yaml | xargs sed -nE 's/^ +([^ ]+): ([0-9a-f]{32})$/\2  \1/p'; }

fetch() {
  local name=$1 expected zip="$root/.$1.zip" part="$root/.$1.part"
  expected=$(sums "$name") || { echo "no '$name' here. All: $(names)" >&2; return 2; }
  if [ -e "$root/$name" ]; then
    echo "$root/$name is there already: remove it to fetch it again"
    return
  fi
  mkdir -p "$root"
  if [ ! -e "$zip" ]; then
    curl -fL -C - -o "$zip.part" "$hub/$name/resolve/main/$name.zip"
    mv "$zip.part" "$zip"
  fi
  rm -rf "$part"
  mkdir "$part"
  if ! python3 -m zipfile -e "$zip" "$part" 2> /dev/null; then
    echo "$name: the archive is damaged. Nothing was kept; run this again." >&2
    rm -rf "$part" "$zip"
    return 1
  fi
  find "$part" -mindepth 2 -type f -exec mv {} "$part" \; # some archives hold a folder
  if ! (cd "$part" && md5sum -c --quiet <<< "$expected"); then
    echo "$name is not what was published. Its files:" >&2
    (cd "$part" && md5sum -- *) >&2 || true
    printf 'expected:\n%s\nNothing was kept; run this again.\n' "$expected" >&2
    rm -rf "$part" "$zip"
    return 1
  fi
  mv "$part" "$root/$name"
  rm "$zip"
  echo "$root/$name: $(wc -l <<< "$expected") files as published"
}

[ $# -gt 0 ] || { echo "usage: $0 NAME ...   of $(names)" >&2; exit 2; }
for name in "$@"; do fetch "$name"; done
