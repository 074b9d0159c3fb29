/*
 * What the preload library and borrownet agree on. abi.go says the same in Go, and
 * abi_test.go compares the two.
 *
 * DOC: Theory of Operation
 *
 * borrownet starts a program with LD_PRELOAD set to the library and BN_ENV set to
 *
 *   VERSION:MODE:BROKER:HELPER
 *
 * where MODE is 'n' (the session has a namespace) or 'r' (it has none), BROKER is
 * the path of the daemon's socket and HELPER that of the namespace's helper, empty
 * in mode 'r'. No path has a colon in it. The library keeps nothing between calls:
 * each question goes over a connection of its own, so that there is nothing to
 * share between threads or to lose in fork().
 *
 * The helper (hook/netns) makes sockets. A bn_socket_request is answered by one
 * byte, an errno, and with errno 0 a descriptor (SCM_RIGHTS).
 *
 * The broker (hook/broker) answers a bn_request by a bn_answer. Either may be
 * followed by size bytes. Numbers are of the machine's own byte order: both ends
 * are on it.
 */
#ifndef BN_ABI_H
#define BN_ABI_H

#include <stdint.h>

#define BN_VERSION 1
#define BN_ENV "BORROWNET_PRELOAD"

/* Of the helper: socket(2), or a namespace of its own (domain BN_NAMESPACE). */
struct bn_socket_request {
	uint32_t domain;
	uint32_t type;
	uint32_t protocol;
};

#define BN_NAMESPACE 0x424e /* type is CLONE_NEWUSER or CLONE_NEWNET */

#define BN_FIRST_AUTO_PORT 61001 /* where the ports begin that the session's kernel chooses */

#define BN_MAX_MESSAGE 65535 /* of DNS, RFC 1035 4.2.2 */

/* What a bn_request asks for. */
enum bn_op {
	BN_RESOLVE = 1, /* size bytes of a DNS query; the answer has the reply */
	BN_CONNECT = 2, /* connect(2) of the descriptor that comes with it to addr */
	BN_SEND = 3, /* where a datagram for addr is to be sent from that descriptor */
	BN_PEER = 4, /* whose address addr is, as that descriptor sees it */
	BN_LISTEN = 5, /* the descriptor is about to listen: publish its port; on loopback: the laptop listens there now */
};

struct bn_request {
	uint32_t version;
	uint32_t op;
	uint32_t size;
	uint16_t family; /* AF_INET or AF_INET6, of addr; 0 = none */
	uint16_t port; /* in host order */
	uint8_t addr[16]; /* an IPv4 address takes the first four bytes */
};

/* What is to be done. */
enum bn_verdict {
	BN_DONE = 0, /* the call returns 0; or use addr, or the size bytes that follow */
	BN_FAIL = 1, /* the call fails with error */
	BN_LOCAL = 2, /* the address is the laptop's own: let the kernel do it */
};

struct bn_answer {
	uint32_t verdict;
	uint32_t error;
	uint32_t size;
	uint16_t family;
	uint16_t port;
	uint8_t addr[16];
};

_Static_assert(sizeof(struct bn_socket_request) == 12, "bn_socket_request");
_Static_assert(sizeof(struct bn_request) == 32, "bn_request");
_Static_assert(sizeof(struct bn_answer) == 32, "bn_answer");

#endif
