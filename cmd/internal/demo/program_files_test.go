//go:build linux && !race

package demo

// The sources of programs that are no single command.

const goMod = "module example.org/app\n\ngo 1.24\n"

// goProgram asks orders, in a function to stop at.
var goProgram = map[string]string{
	"go.mod": goMod,
	"main.go": `package main

import (
	"io"
	"net"
	"os"
)

func main() {
	if err := call(os.Args[1]); err != nil {
		panic(err)
	}
}

//go:noinline
func call(what string) error {
	c, err := net.Dial("tcp", "orders:80")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /"+what+" HTTP/1.0\r\nHost: orders\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}
`,
	"steps": "break main.call\ncontinue\nargs\ncontinue\nexit\n",
}

// goTest has a server of httptest, on the loopback, that asks orders.
const goTest = `package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func get(t *testing.T, url string) []byte {
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestHandler(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(get(t, "http://orders"+r.URL.Path))
	}))
	defer srv.Close()
	t.Logf("%s", get(t, srv.URL+"/tested"))
}
`

const nodeApp = `globalThis.ask = () => require("http").get("http://orders/node", r => r.pipe(process.stdout));
globalThis.require = require;
setInterval(() => {}, 1000);
`

const asgiApp = `import urllib.request

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b"one " + urllib.request.urlopen("http://orders/asgi").read()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
`

const wsgiApp = `import os, urllib.request

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"worker %d\n" % os.getpid(), urllib.request.urlopen("http://orders/wsgi").read()]
`

const javaServer = `import com.sun.net.httpserver.HttpServer;
import java.net.*;

class Main {
	public static void main(String[] args) throws Exception {
		HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 0);
		server.createContext("/", exchange -> {
			byte[] body = new URL("http://orders" + exchange.getRequestURI()).openStream().readAllBytes();
			exchange.sendResponseHeaders(200, body.length);
			exchange.getResponseBody().write(body);
			exchange.close();
		});
		server.start();
	}
}
`

// javaCall asks orders, in a method to stop at.
const javaCall = `import java.net.*;

class Debugged {
	public static void main(String[] args) throws Exception {
		call("http://orders/jdb");
	}

	static void call(String url) throws Exception {
		System.out.println(new String(new URL(url).openStream().readAllBytes()));
	}
}
`

const pythonCall = `import urllib.request
print(urllib.request.urlopen("http://orders/debugpy").read().decode())
`

// debugAdapterClient does what an editor does: it attaches by the Debug Adapter Protocol, stops the program in its
// second line, says where it stands, and lets it go on to its end.
const debugAdapterClient = `import itertools, json, socket, sys

conn = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream = conn.makefile("rwb")
numbers = itertools.count(1)

def send(command, **arguments):
    body = json.dumps({"seq": next(numbers), "type": "request", "command": command, "arguments": arguments}).encode()
    stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    stream.flush()

def receive(what):
    while True:
        length = 0
        for line in iter(stream.readline, b"\r\n"):
            if not line:
                sys.exit("the debugger is gone before " + what)
            name, value = line.split(b":")
            if name == b"Content-Length":
                length = int(value)
        message = json.loads(stream.read(length))
        if what in (message.get("event"), message.get("command")):
            return message.get("body")

send("initialize", adapterID="test", pathFormat="path")
receive("initialize")
send("attach", pathMappings=[{"localRoot": ".", "remoteRoot": "."}])
receive("initialized")
send("setBreakpoints", source={"path": "app.py"}, breakpoints=[{"line": 2}])
receive("setBreakpoints")
send("configurationDone")
thread = receive("stopped")["threadId"]
send("stackTrace", threadId=thread)
frame = receive("stackTrace")["stackFrames"][0]
print("stopped at %s:%d" % (frame["source"]["path"].rpartition("/")[2], frame["line"]))
send("continue", threadId=thread)
receive("terminated")
`

const nginxConf = `daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen 127.0.0.1:PORT;
		location / { proxy_pass http://orders; }
	}
}
`

const makefile = `all: $(addprefix out/,1 2 3 4 5 6 7 8)
	cat $^
out/%: | out
	curl -sS http://orders/$* >$@
out:
	mkdir out
`
