#!/usr/bin/env bash
# Writes the small web site that nginx serves while the logs are recorded into DIR.
set -euo pipefail
dir=$1

page() { # PATH TITLE
    mkdir -p "$(dirname "$dir/$1")"
    cat >"$dir/$1" <<HTML
<!doctype html><html><head><title>$2</title><link rel="stylesheet" href="/css/site.css">
<script src="/js/site.js" defer></script></head><body><img src="/img/logo.svg" alt=""><h1>$2</h1>
<nav><a href="/">Home</a> <a href="/products/">Products</a> <a href="/docs/">Docs</a>
<a href="/news/">News</a> <a href="/about.html">About</a> <a href="/contact.html">Contact</a></nav>
</body></html>
HTML
}
page index.html 'Example Instruments'
page about.html 'About us'
page contact.html 'Contact'
page search.html 'Search'
page item.html 'Item'
page products/index.html 'Products'
for product in barometer hygrometer anemometer; do page "products/$product.html" "$product"; done
page docs/index.html 'Documentation'
for chapter in install calibrate maintain; do page "docs/$chapter.html" "$chapter"; done
page news/index.html 'News'
for year in 2024 2025; do page "news/$year.html" "News of $year"; done
mkdir -p "$dir"/{css,js,img}
echo 'body { font: 16px sans-serif; max-width: 50em; margin: auto; }' >"$dir/css/site.css"
echo 'document.documentElement.classList.add("ready");' >"$dir/js/site.js"
echo '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="18"/></svg>' >"$dir/img/logo.svg"
printf 'User-agent: *\nDisallow: /private/\n' >"$dir/robots.txt"
