// What a C++ program does with sockets by Boost.Asio, one line of output for each thing: "ROW/CHECK: RESULT".
// integration/matrix_test.go has the results that are wanted. Arguments: the port of a TCP and of a UDP server of the
// laptop, and a port below 1024 of its own. Asio registers each socket at epoll when it is opened.
#include <boost/asio.hpp>

#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;

static const char *const pod = "192.0.2.10", *const ledger = "198.51.100.22", *const gone = "203.0.113.2";
static asio::io_context io;

// finish() - runs what was begun, for so long; give_up has to end what is left, whose handlers may not outlive the caller
static void finish(const std::function<void()> &give_up)
{
	io.restart();
	io.run_for(std::chrono::seconds(30));
	if (io.stopped())
		return;
	give_up();
	io.run();
}

static std::string error(const boost::system::error_code &e)
{
	switch (e.value()) {
	case 0: return "ok";
	case ECONNREFUSED: return "ECONNREFUSED";
	case EHOSTUNREACH: return "EHOSTUNREACH";
	case EADDRINUSE: return "EADDRINUSE";
	case EMFILE: return "EMFILE";
	}
	return e.message();
}

// attempt() - says what f returns, or the errno that it fails by
static void attempt(const std::string &check, const std::function<std::string()> &f)
{
	std::string result;
	try {
		result = f();
	} catch (const boost::system::system_error &e) {
		result = error(e.code());
	}
	std::cout << check << ": " << result << std::endl;
}

static tcp::endpoint at(const std::string &host, int port) { return {asio::ip::make_address(host), static_cast<unsigned short>(port)}; }

// Call is a connection that says text and hears all that is said.
struct Call {
	tcp::socket socket{io};
	std::string text, said;
	boost::system::error_code failed = asio::error::timed_out;

	void begin(const tcp::endpoint &to)
	{
		socket.open(to.protocol());
		socket.async_connect(to, [this](auto e) {
			if (e) {
				failed = e;
				return;
			}
			asio::async_write(socket, asio::buffer(text), [this](auto, auto) {
				if (!text.empty())
					socket.shutdown(tcp::socket::shutdown_send);
				asio::async_read(socket, asio::dynamic_buffer(said), [this](auto e, auto) { failed = e == asio::error::eof ? boost::system::error_code() : e; });
			});
		});
	}

	void give_up()
	{
		boost::system::error_code ignored;
		socket.close(ignored);
	}

	std::string result()
	{
		if (failed)
			return error(failed);
		while (!said.empty() && said.back() == '\n')
			said.pop_back();
		return said;
	}
};

static std::string call(const tcp::endpoint &to)
{
	Call c;
	c.begin(to);
	finish([&] { c.give_up(); });
	return c.result();
}

static std::string parallel()
{
	auto found = tcp::resolver(io).resolve(tcp::v4(), "ledger", "7");
	std::vector<std::unique_ptr<Call>> calls;
	int good = 0;
	for (int i = 0; i < 50; i++) {
		calls.push_back(std::make_unique<Call>());
		calls.back()->text = "number " + std::to_string(i);
		calls.back()->begin(found.begin()->endpoint());
	}
	finish([&] {
		for (auto &c : calls)
			c->give_up();
	});
	for (auto &c : calls)
		good += c->result() == c->text;
	return std::to_string(good) + " of 50";
}

static std::string reply(udp::socket &s)
{
	char room[100];
	std::string said = "nothing";
	s.async_receive(asio::buffer(room), [&](auto e, auto n) {
		if (e != asio::error::operation_aborted)
			said = e ? error(e) : std::string(room, n);
	});
	finish([&] { s.cancel(); });
	return said;
}

static std::string connected()
{
	udp::socket s(io, udp::v4());
	s.connect({asio::ip::make_address(ledger), 7});
	s.send(asio::buffer("hi", 2));
	return reply(s);
}

static std::string both(int port)
{
	udp::socket s(io, udp::v4());
	s.send_to(asio::buffer("far", 3), {asio::ip::make_address(ledger), 7});
	auto far = reply(s);
	s.send_to(asio::buffer("near", 4), {asio::ip::make_address("127.0.0.1"), static_cast<unsigned short>(port)});
	return far + ", " + reply(s);
}

static std::string localhost(int port)
{
	tcp::socket s(io);
	asio::connect(s, tcp::resolver(io).resolve("localhost", std::to_string(port)));
	std::string said;
	boost::system::error_code e;
	asio::read(s, asio::dynamic_buffer(said), e);
	return said;
}

// listen() - greets one; who is to connect is told by check, or the program itself if that is empty
static std::string listen(const std::string &check, const tcp::endpoint &where, bool v6only = false)
{
	tcp::acceptor l(io);
	l.open(where.protocol());
	if (where.address().is_v6())
		l.set_option(asio::ip::v6_only(v6only));
	if (where.port()) /* as servers do: connections of the last minute are remembered at a port that is asked for again */
		l.set_option(tcp::acceptor::reuse_address(true));
	l.bind(where);
	tcp::socket c(io);
	Call own;
	std::string result = "nobody connects";
	l.listen();
	l.async_accept(c, [&](auto e) {
		if (!e)
			asio::write(c, asio::buffer("hello", 5), e);
		if (e != asio::error::operation_aborted)
			result = e ? error(e) : "greeted";
		c.close();
	});
	if (check.empty())
		own.begin(l.local_endpoint());
	else
		std::cout << check << ": at " << l.local_endpoint().port() << std::endl;
	finish([&] {
		l.close();
		c.close();
		own.give_up();
	});
	return check.empty() ? own.result() : result;
}

static std::string in_use()
{
	tcp::acceptor l(io, at("127.0.0.1", 0), false);
	tcp::acceptor(io, l.local_endpoint(), false);
	return "ok";
}

static std::string source(bool seen)
{
	if (seen) {
		auto who = call(at(ledger, 11));
		return who.substr(0, who.find(':'));
	}
	tcp::socket s(io);
	s.connect(at(ledger, 7));
	return s.local_endpoint().address().to_string();
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int tcp_port = std::atoi(argv[1]), udp_port = std::atoi(argv[2]), low = std::atoi(argv[3]);

	attempt("tcp/50", parallel);
	attempt("names/libc", [] { return tcp::resolver(io).resolve(tcp::v4(), "orders", "80").begin()->endpoint().address().to_string(); });
	attempt("epoll/connect", [] {
		Call c;
		c.text = "ok";
		c.begin(at(ledger, 7));
		finish([&] { c.give_up(); });
		return c.result();
	});
	attempt("epoll/listen", [] { return listen("", at("127.0.0.1", 0)) == "hello" ? std::string("ok") : "not greeted"; });
	attempt("udp/connected", connected);
	attempt("udp/both", [=] { return both(udp_port); });
	attempt("local/127.0.0.1", [=] { return call(at("127.0.0.1", tcp_port)); });
	attempt("local/localhost", [=] { return localhost(tcp_port); });
	attempt("local/::1", [=] { return call(at("::1", tcp_port)); });
	attempt("local/mapped", [=] { return call(at("::ffff:127.0.0.1", tcp_port)); });
	for (const char *host : {"127.0.0.1", "0.0.0.0", "::"})
		attempt(std::string("listen/") + host, [=] { return listen(std::string("listen/") + host, at(host, 0)); });
	attempt("listen/v6only", [] { return listen("listen/v6only", at("::", 0), true); });
	attempt("listen/pod", [] { return listen("", at(pod, 0)); });
	attempt("listen/low", [=] { return listen("", at(pod, low)); });
	attempt("source/own", [] { return source(false); });
	attempt("source/seen", [] { return source(true); });
	attempt("errors/in use", in_use);
	attempt("errors/refused", [] { return call(at(ledger, 81)); });
	attempt("errors/refused here", [] { return call(at("127.0.0.1", 1)); });
	attempt("errors/unreachable", [] { return call(at(gone, 80)); });
}
