import io.netty.bootstrap.*;
import io.netty.buffer.*;
import io.netty.channel.*;
import io.netty.channel.epoll.*;
import io.netty.channel.socket.DatagramPacket;
import io.netty.util.CharsetUtil;
import java.net.*;
import java.util.*;
import java.util.concurrent.*;

/**
 * What Netty's native epoll does with sockets, one line of output for each thing: "ROW/CHECK: RESULT". It registers each
 * socket before it connects or listens. The arguments are those of Conform.
 */
class Netty {
	static final String POD = "192.0.2.10", LEDGER = "198.51.100.22";
	static final EventLoopGroup loops = new EpollEventLoopGroup(2);

	/** Hears all that a channel says, which done gets at its end. */
	static class Hearing extends SimpleChannelInboundHandler<ByteBuf> {
		final CompletableFuture<String> done = new CompletableFuture<>();
		final StringBuilder said = new StringBuilder();
		final String text;

		Hearing(String text) {
			this.text = text;
		}

		@Override public void channelActive(ChannelHandlerContext ctx) {
			if (text != null) ctx.writeAndFlush(Unpooled.copiedBuffer(text, CharsetUtil.US_ASCII));
		}

		@Override protected void channelRead0(ChannelHandlerContext ctx, ByteBuf in) {
			said.append(in.toString(CharsetUtil.US_ASCII));
			if (text != null && said.length() >= text.length()) ctx.close(); // an echo
		}

		@Override public void channelInactive(ChannelHandlerContext ctx) {
			done.complete(said.toString().trim());
		}

		@Override public void exceptionCaught(ChannelHandlerContext ctx, Throwable e) {
			done.completeExceptionally(e);
		}
	}

	/** Connects, says text, if it is not null, and hears the answer. */
	static CompletableFuture<String> call(String host, int port, String text) {
		Hearing hearing = new Hearing(text);
		new Bootstrap().group(loops).channel(EpollSocketChannel.class).handler(hearing).connect(host, port)
			.addListener(f -> { if (!f.isSuccess()) hearing.done.completeExceptionally(f.cause()); });
		return hearing.done;
	}

	static void attempt(String check, Callable<?> f) {
		try {
			System.out.println(check + ": " + f.call());
		} catch (Exception e) {
			String text = String.valueOf(e.getCause() == null ? e : e.getCause());
			for (String[] errno : new String[][] {{"Connection refused", "ECONNREFUSED"}, {"NoRouteToHost", "EHOSTUNREACH"}, {"Address already in use", "EADDRINUSE"}})
				if (text.contains(errno[0])) text = errno[1];
			System.out.println(check + ": " + text);
		}
	}

	static String wait(Future<String> f) throws Exception {
		return f.get(30, TimeUnit.SECONDS);
	}

	static String parallel() throws Exception {
		List<CompletableFuture<String>> calls = new ArrayList<>();
		for (int i = 0; i < 50; i++) calls.add(call("ledger", 7, "number " + i));
		int good = 0;
		for (int i = 0; i < 50; i++) if (wait(calls.get(i)).equals("number " + i)) good++;
		return good + " of 50";
	}

	/** Listens at host and greets one; the port is said, unless the program connects itself. */
	static String listen(String check, String host, int port, boolean own) throws Exception {
		CompletableFuture<String> greeted = new CompletableFuture<>();
		Channel l = new ServerBootstrap().group(loops).channel(EpollServerSocketChannel.class).childHandler(new ChannelInboundHandlerAdapter() {
			@Override public void channelActive(ChannelHandlerContext ctx) {
				ctx.writeAndFlush(Unpooled.copiedBuffer("hello", CharsetUtil.US_ASCII)).addListener(ChannelFutureListener.CLOSE);
				greeted.complete("greeted");
			}
		}).bind(host, port).sync().channel();
		int at = ((InetSocketAddress) l.localAddress()).getPort();
		if (!own) System.out.println(check + ": at " + at);
		String said = wait(own ? call(host, at, null) : greeted);
		l.close().sync();
		return said;
	}

	/** Exchanges datagrams with each peer by one socket, which is connected if there is one only. */
	static String datagrams(InetSocketAddress... peers) throws Exception {
		BlockingQueue<String> heard = new LinkedBlockingQueue<>();
		Channel c = new Bootstrap().group(loops).channel(EpollDatagramChannel.class).handler(new SimpleChannelInboundHandler<DatagramPacket>() {
			@Override protected void channelRead0(ChannelHandlerContext ctx, DatagramPacket in) {
				heard.add(in.content().toString(CharsetUtil.US_ASCII));
			}
		}).bind("0.0.0.0", 0).sync().channel();
		if (peers.length == 1) c.connect(peers[0]).sync();
		List<String> said = new ArrayList<>();
		for (InetSocketAddress peer : peers) {
			String text = peers.length == 1 ? "hi" : said.isEmpty() ? "far" : "near";
			c.writeAndFlush(new DatagramPacket(Unpooled.copiedBuffer(text, CharsetUtil.US_ASCII), peer)).sync();
			said.add(heard.poll(30, TimeUnit.SECONDS));
		}
		c.close().sync();
		return String.join(", ", said);
	}

	static String inUse() throws Exception {
		Channel l = new ServerBootstrap().group(loops).channel(EpollServerSocketChannel.class).childHandler(new ChannelInboundHandlerAdapter()).bind("127.0.0.1", 0).sync().channel();
		try {
			return listen("errors/in use", "127.0.0.1", ((InetSocketAddress) l.localAddress()).getPort(), true);
		} finally {
			l.close().sync();
		}
	}

	public static void main(String[] args) throws Exception {
		int tcp = Integer.parseInt(args[0]), udp = Integer.parseInt(args[1]), low = Integer.parseInt(args[2]);
		attempt("tcp/50", Netty::parallel);
		attempt("epoll/connect", () -> wait(call(LEDGER, 7, "ok")));
		attempt("epoll/listen", () -> listen("", "127.0.0.1", 0, true).replace("hello", "ok"));
		attempt("udp/connected", () -> datagrams(new InetSocketAddress(LEDGER, 7)));
		attempt("udp/both", () -> datagrams(new InetSocketAddress(LEDGER, 7), new InetSocketAddress("127.0.0.1", udp)));
		for (String host : new String[] {"127.0.0.1", "localhost", "::1"}) attempt("local/" + host, () -> wait(call(host, tcp, null)));
		for (String host : new String[] {"127.0.0.1", "0.0.0.0", "::"}) attempt("listen/" + host, () -> listen("listen/" + host, host, 0, false));
		attempt("listen/pod", () -> listen("", POD, 0, true));
		attempt("listen/low", () -> listen("", POD, low, true));
		attempt("source/seen", () -> wait(call(LEDGER, 11, null)).split(":")[0]);
		attempt("errors/in use", Netty::inUse);
		attempt("errors/refused", () -> wait(call(LEDGER, 81, null)));
		attempt("errors/refused here", () -> wait(call("127.0.0.1", 1, null)));
		attempt("errors/unreachable", () -> wait(call("203.0.113.2", 80, null)));
		loops.shutdownGracefully(0, 1, TimeUnit.SECONDS).sync();
	}
}
