# Sourced by the download scripts beside it. No table is redistributed: each file comes from its publisher.

data=${FIELDCTR_DATA:-data}

# fetch URL FILE [MD5]: go on where an earlier try stopped, check, and only then give the file its name.
fetch() {
    local url=$1 file=$data/$2 md5=${3:-}
    mkdir -p "$(dirname "$file")"
    if [ -e "$file" ]; then echo "$file is there"; return; fi
    curl --fail --location --retry 5 --continue-at - --output "$file.part" "$url" || return
    if ! whole "$file.part" "$md5"; then
        echo "$file.part is not what the publisher announced. Remove it and try again." >&2
        return 1
    fi
    mv "$file.part" "$file"
}

# whole FILE.part [MD5]: by its md5 sum where one is known, and by the checksum inside an archive.
whole() {
    [ -z "$2" ] || md5sum --check --status <<< "$2  $1" || return
    case $1 in
        *.gz.part) gzip --test < "$1" ;;
        *.zip.part) python3 -m zipfile --test "$1" > /dev/null ;;
    esac
}

# unpack ARCHIVE FOLDER: all of it or nothing; a folder that is alone in the archive becomes FOLDER.
unpack() {
    local part=$data/.$2.part
    if [ -e "$data/$2" ]; then echo "$data/$2 is there"; return; fi
    rm -rf "$part"
    mkdir "$part"
    case $1 in
        *.zip) python3 -m zipfile --extract "$data/$1" "$part" ;;
        *) tar --extract --gzip --file "$data/$1" --directory "$part" ;;
    esac
    set -- "$2" "$part"/*
    if [ $# -eq 2 ] && [ -d "$2" ]; then mv "$2" "$data/$1"; else mv "$part" "$data/$1"; fi
    rm -rf "$part"
}
