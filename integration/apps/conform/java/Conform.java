import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.*;
import java.util.*;
import java.util.concurrent.*;
import javax.naming.directory.InitialDirContext;

/**
 * What a Java program does with sockets, one line of output for each thing: "ROW/CHECK: RESULT".
 * integration/matrix_test.go has the results that are wanted. Arguments: the port of a TCP and of a UDP server of the
 * laptop, and a port below 1024 of its own.
 */
class Conform {
	static final String POD = "192.0.2.10", ORDERS = "orders.shop.svc.cluster.local", LEDGER = "198.51.100.22", GONE = "203.0.113.2";
	static final int PATIENCE = 30_000;

	static void say(String check, Object result) {
		System.out.println(check + ": " + result);
	}

	/** Says what f returns, or by which errno it fails: Java has texts only. */
	static void attempt(String check, Callable<?> f) {
		try {
			say(check, f.call());
		} catch (Exception e) {
			String text = e.toString();
			for (String[] errno : new String[][] {
				{"Connection refused", "ECONNREFUSED"}, {"No route to host", "EHOSTUNREACH"}, {"Address already in use", "EADDRINUSE"},
				{"Too many open files", "EMFILE"}})
				if (text.contains(errno[0])) text = errno[1];
			say(check, text);
		}
	}

	static Socket dial(String host, int port) throws IOException {
		Socket s = new Socket();
		s.setSoTimeout(PATIENCE);
		s.connect(new InetSocketAddress(host, port), PATIENCE);
		return s;
	}

	static String hear(Socket s) throws IOException {
		try (s) {
			return new String(s.getInputStream().readAllBytes()).trim();
		}
	}

	static String who() throws IOException {
		return hear(dial(LEDGER, 11)).split(":")[0];
	}

	/** Fifty connections at a time by one selector. */
	static String parallel() throws IOException {
		int many = 50, left = many, good = 0;
		InetSocketAddress ledger = new InetSocketAddress("ledger", 7);
		try (Selector selector = Selector.open()) {
			for (int i = 0; i < many; i++) {
				SocketChannel c = SocketChannel.open();
				c.configureBlocking(false);
				c.register(selector, SelectionKey.OP_CONNECT, ByteBuffer.wrap(("number " + i).getBytes()));
				c.connect(ledger);
			}
			while (left > 0 && selector.select(PATIENCE) > 0) {
				for (SelectionKey key : selector.selectedKeys()) {
					SocketChannel c = (SocketChannel) key.channel();
					ByteBuffer text = (ByteBuffer) key.attachment();
					if (key.isConnectable()) {
						c.finishConnect();
						c.write(text.duplicate());
						key.interestOps(SelectionKey.OP_READ);
					} else {
						ByteBuffer got = ByteBuffer.allocate(100);
						c.read(got);
						if (got.flip().equals(text)) good++;
						c.close();
						left--;
					}
				}
				selector.selectedKeys().clear();
			}
		}
		return good + " of " + many;
	}

	static String get() throws Exception {
		String body = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create("http://orders/path")).build(),
			HttpResponse.BodyHandlers.ofString()).body();
		return body.replaceAll("(?s).*\"path\": \"([^\"]*)\".*", "$1");
	}

	static Object jndi() throws Exception {
		Hashtable<String, String> env = new Hashtable<>();
		env.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
		env.put("java.naming.provider.url", "dns:");
		return new InitialDirContext(env).getAttributes(ORDERS, new String[] {"A"}).get("A").get();
	}

	static String exchange(DatagramSocket s, String text, SocketAddress to) throws IOException {
		byte[] room = new byte[100];
		DatagramPacket in = new DatagramPacket(room, room.length);
		s.setSoTimeout(PATIENCE);
		s.send(to == null ? new DatagramPacket(text.getBytes(), text.length()) : new DatagramPacket(text.getBytes(), text.length(), to));
		s.receive(in);
		return new String(room, 0, in.getLength());
	}

	static String connected() throws IOException {
		try (DatagramSocket s = new DatagramSocket()) {
			s.connect(new InetSocketAddress(LEDGER, 7));
			return exchange(s, "hi", null);
		}
	}

	static String both(int port) throws IOException {
		try (DatagramSocket s = new DatagramSocket()) {
			return exchange(s, "far", new InetSocketAddress(LEDGER, 7)) + ", " + exchange(s, "near", new InetSocketAddress("127.0.0.1", port));
		}
	}

	/** Tells the test where to connect to, and greets it; a server socket without a family listens on both. */
	static String welcome(String check, ServerSocketChannel l, String host) throws IOException {
		try (l) {
			l.bind(host == null ? null : new InetSocketAddress(host, 0));
			say(check, "at " + l.socket().getLocalPort());
			l.socket().setSoTimeout(PATIENCE);
			try (Socket c = l.socket().accept()) {
				c.getOutputStream().write("hello".getBytes());
			}
			return "greeted";
		}
	}

	static String own(int port) throws IOException {
		try (ServerSocket l = new ServerSocket(port, 5, InetAddress.getByName(POD)); Socket peer = dial(POD, l.getLocalPort())) {
			l.setSoTimeout(PATIENCE);
			try (Socket c = l.accept()) {
				c.getOutputStream().write("hello".getBytes());
			}
			return hear(peer);
		}
	}

	static String inUse() throws IOException {
		InetAddress loopback = InetAddress.getByName("127.0.0.1");
		try (ServerSocket a = new ServerSocket(0, 5, loopback); ServerSocket b = new ServerSocket(a.getLocalPort(), 5, loopback)) {
			return "ok";
		}
	}

	static String descriptors() throws IOException {
		List<Closeable> open = new ArrayList<>();
		try {
			for (int i = 0; i < 300; i++) open.add(DatagramChannel.open());
		} finally {
			for (Closeable c : open) c.close();
		}
		return "ok";
	}

	static String interfaces() throws IOException {
		for (NetworkInterface i : Collections.list(NetworkInterface.getNetworkInterfaces()))
			for (InetAddress a : Collections.list(i.getInetAddresses()))
				if (a.getHostAddress().equals(POD)) return POD;
		return "others";
	}

	static String ownAddress() throws IOException {
		try (Socket s = dial(LEDGER, 7)) {
			return s.getLocalAddress().getHostAddress();
		}
	}

	public static void main(String[] args) throws Exception {
		int tcp = Integer.parseInt(args[0]), udp = Integer.parseInt(args[1]), low = Integer.parseInt(args[2]);
		attempt("tcp/50", Conform::parallel);
		attempt("tcp/http", Conform::get);
		attempt("names/libc", () -> InetAddress.getByName("orders").getHostAddress());
		attempt("names/jndi", Conform::jndi);
		attempt("udp/connected", Conform::connected);
		attempt("udp/both", () -> both(udp));
		for (String host : new String[] {"127.0.0.1", "localhost", "::1"}) attempt("local/" + host, () -> hear(dial(host, tcp)));
		attempt("listen/127.0.0.1", () -> welcome("listen/127.0.0.1", ServerSocketChannel.open(), "127.0.0.1"));
		attempt("listen/0.0.0.0", () -> welcome("listen/0.0.0.0", ServerSocketChannel.open(StandardProtocolFamily.INET), "0.0.0.0"));
		attempt("listen/::", () -> welcome("listen/::", ServerSocketChannel.open(), null));
		attempt("listen/pod", () -> own(0));
		attempt("listen/low", () -> own(low));
		attempt("source/interfaces", Conform::interfaces);
		attempt("source/own", Conform::ownAddress);
		attempt("source/seen", Conform::who);
		attempt("errors/in use", Conform::inUse);
		attempt("errors/refused", () -> dial(LEDGER, 81));
		attempt("errors/refused here", () -> dial("127.0.0.1", 1));
		attempt("errors/unreachable", () -> dial(GONE, 80));
		attempt("errors/descriptors", Conform::descriptors);
	}
}
