#!/usr/bin/env bash
# The manual as a book with a search: static pages made by mdBook from the same files, in target/site/book (index.html is its front).
#
# usage: scripts/site.sh [--install]     with --install mdBook is built if it is not there, which takes some minutes;
#                                        without it, the script says that it skips
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/target/tools/bin:$PATH
if ! command -v mdbook >/dev/null; then
    if [ "${1:-}" != --install ]; then
        printf 'skipped: there is no mdbook, and nobody asked for it to be installed (--install)\n'
        exit 0
    fi
    cargo install --quiet --locked --root target/tools mdbook
fi

site=target/site
rm -rf "$site"
mkdir -p "$site/src"
cp -r docs/. "$site/src/"
repository=$(sed -n 's/^repository = "\(.*\)"$/\1/p' Cargo.toml)
# A folder's front is its index, and what is not a page of the book is in the repository.
find "$site/src" -name README.md -execdir mv {} index.md \;
sed -i -E 's#(\]\(|\]: )(tutorial/)?README\.md#\1\2index.md#g' "$site"/src/*.md
sed -i -E 's#(\]\(|\]: )(\.\./)?README\.md#\1\2index.md#g' "$site"/src/tutorial/*.md
find "$site/src" -name '*.md' -exec sed -i -E \
    "s#(\]\(|\]: )(\.\./)+(src|examples|benches|scripts|tests|[A-Z]+\.md)#\1$repository/blob/main/\3#g" {} +

# entry FILE: its line in the table of contents, called as its heading.
entry() {
    printf -- '- [%s](%s)\n' "$(sed -n '1s/^# //p' "$site/src/$1")" "$1"
}

# The table of contents is the front's: a part for each heading, a chapter for each row.
{
    printf '# Summary\n\n[The manual](index.md)\n\n# The tutorial\n\n'
    entry tutorial/index.md
    for step in "$site"/src/tutorial/[0-9]*.md; do entry "tutorial/$(basename "$step")"; done
    while IFS= read -r line; do
        case $line in
            '## '*) printf '\n# %s\n\n' "${line#\#\# }" ;;
            '| ['*) entry "$(sed -E 's/^\| \[[^]]*\]\(([^)]*)\).*/\1/' <<<"$line")" ;;
        esac
    done <docs/README.md
} >"$site/src/SUMMARY.md"

cat >"$site/book.toml" <<END
[book]
title = "mainspring"
description = "A single-threaded event loop with protocol callbacks, for Rust"
language = "en"
src = "src"

[build]
build-dir = "book"

[rust]
edition = "2024"

[output.html]
git-repository-url = "$repository"
default-theme = "light"
preferred-dark-theme = "navy"
no-section-label = true
additional-css = ["site.css"]

[output.html.playground]
runnable = false
END
# Our lines of code have up to 130 columns.
printf ':root { --content-max-width: 950px; }\n' >"$site/site.css"
mdbook build "$site"
printf 'the book is in %s: open %s/book/index.html\n' "$site/book" "$site"
