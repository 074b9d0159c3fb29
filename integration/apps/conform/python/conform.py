"""What a Python program does with sockets, one line of output for each thing: "ROW/CHECK: RESULT".

integration/matrix_test.go has the results that are wanted. Arguments: the port of a TCP and of a UDP server of the
laptop, and a port below 1024 of its own.
"""
import array
import asyncio
import errno
import os
import re
import resource
import select
import socket
import struct
import subprocess
import sys

POD, ORDERS, LEDGER, SILENT, GONE = "192.0.2.10", "orders.shop.svc.cluster.local", "198.51.100.22", "203.0.113.1", "203.0.113.2"
PATIENCE = 30


def say(check, result):
    os.write(1, f"{check}: {result}\n".encode())


def attempt(check, f, *args):
    """Says what f returns, or the name of the errno that it raises."""
    try:
        say(check, f(*args))
    except OSError as e:
        say(check, errno.errorcode.get(e.errno, e))


def dial(host, port):
    return socket.create_connection((host, port), PATIENCE)


def hear(c):
    with c:
        out = b""
        while part := c.recv(2000):
            out += part
        return out.decode().strip()


def who():
    return hear(dial(LEDGER, 11)).split(":")[0]


async def echo(i):
    r, w = await asyncio.open_connection("ledger", 7, family=socket.AF_INET)
    w.write(b"number %d" % i)
    w.write_eof()
    good = await r.read() == b"number %d" % i
    w.close()
    return good


async def parallel():
    return f"{sum(await asyncio.gather(*map(echo, range(50))))} of 50"


def get():
    try:
        import requests
    except ImportError:
        return "no requests"
    return requests.get("http://orders/path", timeout=PATIENCE).json()["path"]


def query():
    name = b"".join(bytes([len(x)]) + x.encode() for x in ORDERS.split("."))
    return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + name + b"\0\0\x01\0\x01"


def nameserver():
    return re.search(r"^nameserver\s+([^\s%]+)", open("/etc/resolv.conf").read() + "\nnameserver 127.0.0.1", re.M)[1]


def ask_udp():
    with socket.socket(socket.AF_INET6 if ":" in nameserver() else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.sendto(query(), (nameserver(), 53))
        return socket.inet_ntoa(s.recv(600)[-4:])


def ask_tcp():
    with dial(nameserver(), 53) as s:
        s.sendall(struct.pack(">H", len(query())) + query())
        size = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))[0]
        return socket.inet_ntoa(s.recv(size, socket.MSG_WAITALL)[-4:])


def udp_connected():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.connect((LEDGER, 7))
        s.send(b"hi")
        return s.recv(100).decode()


def udp_both(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.sendto(b"far", (LEDGER, 7))
        far, peer = s.recvfrom(100)
        if peer != (LEDGER, 7):
            return f"from {peer}"
        s.sendmsg([b"near"], [], 0, ("127.0.0.1", port))
        return f"{far.decode()}, {s.recv(100).decode()}"


def listener(host, port=0, v6only=0):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(PATIENCE)
    if ":" in host:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    if 0 < port < 1024:  # as servers do: connections of the last minute are remembered at a port that is asked for again
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host:
        s.bind((host, port))
    s.listen()
    return s


def welcome(check, host, v6only=0):
    """Tells the test where to connect to, and greets it."""
    try:
        with listener(host, 0, v6only) as s:
            say(check, f"at {s.getsockname()[1]}")
            c, _ = s.accept()
            with c:
                c.sendall(b"hello")
    except OSError as e:
        say(check, errno.errorcode.get(e.errno, e))


def own(host, port):
    with listener(host, port) as s, dial(host, s.getsockname()[1]) as peer:
        c, _ = s.accept()
        with c:
            c.sendall(b"hello")
        return hear(peer)


def in_use():
    with listener("127.0.0.1") as s, listener("127.0.0.1", s.getsockname()[1]):
        return "ok"


def descriptors():
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as s:
        resource.setrlimit(resource.RLIMIT_NOFILE, (s.fileno(), old[1]))
    try:
        with socket.socket(), socket.socket():
            return "ok"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)


def silence():
    s = socket.socket()
    s.setblocking(False)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    s.connect_ex((SILENT, 80))
    return s


def timed_out(s):
    select.select([], [s], [], 2 * PATIENCE)
    return errno.errorcode.get(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "no error")


def prefork():
    with listener("127.0.0.1") as s:
        s.setblocking(True)
        pids = []
        for _ in range(2):
            if (pid := os.fork()) == 0:
                c, _ = s.accept()
                c.sendall(b"w")
                os._exit(0)
            pids.append(pid)
        served = sum(hear(dial(*s.getsockname())) == "w" for _ in pids)
        for pid in pids:
            os.waitpid(pid, 0)
        return f"{served} served"


def fork():
    if (pid := os.fork()) == 0:
        attempt("children/fork", who)
        os._exit(0)
    os.waitpid(pid, 0)


def orphan():
    """Calls when its parent has gone, and is waited for by nobody but the session."""
    r, w = os.pipe()
    if os.fork() > 0:
        return
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    os.close(w)
    os.read(r, 1)  # ends when main has
    attempt("children/orphan", who)
    os._exit(0)


def duplicate():
    with socket.socket() as a:
        with a.dup() as b:
            a.bind(("127.0.0.1", 0))
            a.listen()
            b.settimeout(PATIENCE)
            peer = dial(*a.getsockname())
            c, _ = b.accept()
            with c:
                c.sendall(b"hello")
            return hear(peer)


def reuseport():
    with socket.socket() as a, socket.socket() as b:
        for s in a, b:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        a.bind(("127.0.0.1", 0))
        a.listen()
        b.bind(a.getsockname())
        b.listen()
        return "ok"


def passed_on():
    ours, theirs = socket.socketpair()
    if (pid := os.fork()) == 0:
        _, control, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
        fd = array.array("i", control[0][2])[0]
        say("sockets/passed on", hear(socket.socket(fileno=fd)).split(":")[0])
        os._exit(0)
    with dial(LEDGER, 11) as c:
        c.setblocking(True)
        socket.send_fds(ours, [b"x"], [c.fileno()])
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()


def half_close():
    c = dial(LEDGER, 9)
    c.sendall(b"12345")
    c.shutdown(socket.SHUT_WR)
    return hear(c)[:10]


def sendfile():
    c = dial(LEDGER, 9)
    with open(sys.argv[0], "rb") as f:
        sent = c.sendfile(f, count=1000)
    c.shutdown(socket.SHUT_WR)
    return f"{sent} sent, {hear(c)[:13]}"


def fast_open():
    c = socket.socket()
    c.settimeout(PATIENCE)
    c.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    c.connect((LEDGER, 9))
    c.sendall(b"123")
    c.shutdown(socket.SHUT_WR)
    return hear(c)[:10]


def linger():
    c = dial(LEDGER, 7)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
    return "ok"


def interfaces():
    addrs = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout
    return POD if POD in addrs.split() else "others"


def own_address():
    with dial(LEDGER, 7) as c:
        return c.getsockname()[0]


def main():
    tcp, udp, low = map(int, sys.argv[1:])
    silent = silence()
    attempt("tcp/50", lambda: asyncio.run(parallel()))
    attempt("tcp/requests", get)
    attempt("names/libc", socket.gethostbyname, "orders")
    attempt("names/udp", ask_udp)
    attempt("names/tcp", ask_tcp)
    attempt("udp/connected", udp_connected)
    attempt("udp/both", udp_both, udp)
    for check, host in ("127.0.0.1",) * 2, ("localhost",) * 2, ("::1",) * 2, ("mapped", "::ffff:127.0.0.1"):
        attempt("local/" + check, lambda: hear(dial(host, tcp)))
    for check, host in ("127.0.0.1",) * 2, ("0.0.0.0",) * 2, ("::",) * 2, ("unbound", ""):
        welcome("listen/" + check, host)
    welcome("listen/v6only", "::", 1)
    attempt("listen/pod", own, POD, 0)
    attempt("listen/low", own, POD, low)
    attempt("sockets/dup", duplicate)
    attempt("sockets/reuseport", reuseport)
    passed_on()
    attempt("sockets/half-close", half_close)
    attempt("sockets/sendfile", sendfile)
    attempt("sockets/fast open", fast_open)
    attempt("sockets/linger", linger)
    attempt("source/interfaces", interfaces)
    attempt("source/own", own_address)
    attempt("source/seen", who)
    fork()
    attempt("children/prefork", prefork)
    say("children/spawn", subprocess.run([sys.executable, sys.argv[0]], capture_output=True, text=True).stdout.strip())
    attempt("errors/in use", in_use)
    attempt("errors/refused", dial, LEDGER, 81)
    attempt("errors/refused here", dial, "127.0.0.1", 1)
    attempt("errors/unreachable", dial, GONE, 80)
    attempt("errors/descriptors", descriptors)
    attempt("errors/timed out", timed_out, silent)
    orphan()


if len(sys.argv) == 1:
    print(who())
else:
    main()
