#!/bin/sh
# Makes a folder hold what the tar archive at its standard input holds, and nothing else: for an engine that does not see
# the project's own folder. Each file is replaced whole, while the server may be reading.
# usage: receive.sh FOLDER < ARCHIVE
set -eu
new=.new
cd "$1"
rm -rf "$new"
mkdir "$new"
tar --extract --no-same-owner --preserve-permissions --directory "$new"
(cd "$new" && find . -mindepth 1 -type d) | while read -r folder; do mkdir -p "$folder"; done
find . -path "./$new" -prune -o -type f -print | while read -r file; do
    [ -e "$new/$file" ] || rm "$file"
done
(cd "$new" && find . -type f) | while read -r file; do mv -f "$new/$file" "$file"; done
rm -rf "$new"
