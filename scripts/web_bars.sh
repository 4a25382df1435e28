#!/usr/bin/env bash
# Whether web_server (examples/web) holds its bars, beside nginx and hyper in one run (docs/benchmarks.md, "A web server"):
# requests a second for a file of 1 KB, and for one of 50 MB; and that a restart under load loses nobody.
#
# usage: scripts/web_bars.sh [ROUNDS [SECONDS]]     5 and 4; takes nginx and wrk from Debian
set -u
cd "$(dirname "$0")/.." || exit 1
source scripts/report.sh
rounds=${1:-5} seconds=${2:-4}
PATH=$PATH:/usr/sbin
for program in nginx wrk python3; do
    need $program || { skip "the bars of web_server" "there is no $program"; exit 0; }
done
# The best that each can get from the compiler.
export CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1
cargo build --quiet --release --manifest-path examples/web/Cargo.toml --target-dir target/web-bars || exit 1
cargo build --quiet --release --manifest-path benches/peers/hyper/Cargo.toml --target-dir target/hyper || exit 1

place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; pkill -f "web_server.*$place/files"; rm -rf "$place"' EXIT
mkdir "$place/files" "$place/nginx"
chmod 755 "$place" "$place/files"
head -c 1024 /dev/urandom >"$place/files/small"
head -c 50000000 /dev/urandom >"$place/files/large"
chmod 644 "$place"/root/*
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start NAME COMMAND...: a server, whose port is in $ports.
declare -A ports pids
start() {
    local name=$1
    shift
    "$@" >"$place/$name.out" 2>"$place/$name.err" &
    pids[$name]=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/${ports[$name]}") 2>/dev/null; do
        kill -0 "${pids[$name]}" 2>/dev/null || { cat "$place/$name.err" >&2; exit 1; }
    done
}

web=target/web-bars/release/web_server
for name in loop pool nginx hyper blocking; do ports[$name]=$(port); done
cat >"$place/nginx.conf" <<END
worker_processes 1; daemon off; master_process off; pid $place/nginx/pid; error_log $place/nginx/error.log crit;
events { worker_connections 4096; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 60s; default_type application/octet-stream;
    client_body_temp_path $place/nginx; proxy_temp_path $place/nginx; fastcgi_temp_path $place/nginx;
    uwsgi_temp_path $place/nginx; scgi_temp_path $place/nginx;
    server { listen 127.0.0.1:${ports[nginx]}; root $place/files; }
}
END
start loop "$web" --inline "$place/files" "127.0.0.1:${ports[loop]}"
start pool "$web" "$place/files" "127.0.0.1:${ports[pool]}"
start nginx nginx -c "$place/nginx.conf"
start hyper target/hyper/release/hyper-files "$place/files" "${ports[hyper]}"
start blocking target/hyper/release/hyper-files "$place/files" "${ports[blocking]}" blocking

# rate NAME FILE CONNECTIONS: requests a second.
rate() {
    taskset -c 1 wrk -t1 -c"$3" -d"${seconds}s" "http://127.0.0.1:${ports[$1]}/$2" | awk '/Requests\/sec/ { print $2 }'
}
for pid in "${pids[@]}"; do taskset -a -p -c 0 "$pid" >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
    for name in loop nginx hyper pool blocking; do
        rate $name small 64 >>"$place/small.$name"
    done
    for name in loop nginx; do
        rate $name large 4 >>"$place/large.$name"
    done
done

# ratio KIND A B: the median of the rounds' ratios.
ratio() {
    paste "$place/$1.$2" "$place/$1.$3" | awk '{ printf "%.3f\n", $1 / $2 }' | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
below() { awk -v is="$1" -v least="$2" 'BEGIN { exit !(is < least) }' && echo 1 || echo 0; }
# bar TITLE KIND A B LEAST
bar() {
    local is
    is=$(ratio "$2" "$3" "$4")
    report "$(below "$is" "$5")" "$1" "$is, at least $5 ($(sort -n "$place/$2.$3" | tail -1) and $(sort -n "$place/$2.$4" | tail -1) a second at best)"
}
bar "1 KB, read on the loop, beside nginx" small loop nginx 1.2
bar "1 KB, read on the loop, beside hyper" small loop hyper 1.0
bar "1 KB, read by other threads, beside nginx" small pool nginx 0.9
bar "1 KB, read by other threads, beside hyper's spawn_blocking" small pool blocking 1.4
bar "50 MB, beside nginx with sendfile" large loop nginx 0.95

# A restart: wrk counts every connection that was cut off, and every answer that is none.
kill "${pids[loop]}"
ports[again]=$(port)
start again "$web" --inline --grace 60 "$place/files" "127.0.0.1:${ports[again]}"
wrk -t1 -c32 -d6s "http://127.0.0.1:${ports[again]}/small" >"$place/restart" &
wrk=$!
for _ in 1 2 3; do
    sleep 1.5
    kill -HUP "$(pgrep -n -f "web_server.*$place/files")"
done
wait $wrk
errors=$(grep -E "Socket errors|Non-2xx" "$place/restart" | tr '\n' ' ')
restarts=$(grep -c "the successor is ready" "$place/again.err")
report "$([ -z "$errors" ] && [ "$restarts" -eq 3 ]; echo $?)" "three restarts under load" \
    "$restarts, $(awk '/requests in/ { print $1 }' "$place/restart") requests, errors: ${errors:-none}"
conclude
