#!/bin/sh
# What curl does with sockets, one line of output for each thing: "ROW/CHECK: RESULT". integration/matrix_test.go has the
# results that are wanted. Argument: the port of a TCP server of the laptop.

refusal() { # refusal URL: the reason of the last attempt
	curl -sv --max-time 30 "$1" 2>&1 | sed -n 's/.*Connection refused.*/ECONNREFUSED/p; s/.*No route to host.*/EHOSTUNREACH/p' | tail -n 1
}

echo "tcp/50: $(curl -sS --max-time 30 --parallel --parallel-immediate --parallel-max 50 'http://orders/[1-50]' | grep -c '"path": "/') of 50"
echo "names/libc: $(curl -sS --max-time 30 -o /dev/null -w '%{remote_ip}' http://orders)"
for host in 127.0.0.1 localhost; do
	echo "local/$host: $(curl -sS --max-time 30 "gopher://$host:$1/_")"
done
echo "local/::1: $(curl -sS --max-time 30 "gopher://[::1]:$1/_")"
echo "local/mapped: $(curl -sS --max-time 30 "gopher://[::ffff:127.0.0.1]:$1/_")"
echo "errors/refused: $(refusal http://198.51.100.22:81)"
echo "errors/refused here: $(refusal http://127.0.0.1:1)"
echo "errors/unreachable: $(refusal http://203.0.113.2)"
