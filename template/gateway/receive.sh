#!/bin/sh
# Makes a folder hold what the tar archive on standard input holds, and nothing else: for an engine that does not see
# the project's own folder. Each file is replaced as a whole, because the server may be reading it.
# usage: receive.sh FOLDER < ARCHIVE
set -eu
new=.new
last=.last # the archive's last member: without it, it was cut short
cd "$1"
rm -rf "$new"
mkdir "$new"
tar --extract --no-same-owner --preserve-permissions --directory "$new"
rm "$new/$last"
(cd "$new" && find . -mindepth 1 -type d) | while IFS= read -r folder; do
    [ -d "$folder" ] || rm -f "$folder"
    mkdir -p "$folder"
done
find . -path "./$new" -prune -o -type f -print | while IFS= read -r file; do
    [ -e "$new/$file" ] || rm "$file"
done
(cd "$new" && find . -type f) | while IFS= read -r file; do mv -f -T "$new/$file" "$file"; done
rm -rf "$new"
