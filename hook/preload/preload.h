/*
 * What the parts of the preload library share.
 *
 * DOC: Theory of Operation
 *
 * The library is loaded into every program of a session on the preload rungs. It
 * keeps no table, no descriptor, no lock and no heap memory of its own: every call
 * is judged by what the kernel says of the descriptor and by what the helper or the
 * broker answers. So there is nothing that fork(), vfork(), threads, signal
 * handlers, dup2() or closefrom() could break. Only the resolver calls malloc, as
 * the calls that they replace do.
 *
 * A call that is none of the session's goes to the C library's function, or to the
 * kernel. When the session is gone, calls of the session fail: they never use the
 * laptop's own network instead.
 */
#ifndef BN_PRELOAD_H
#define BN_PRELOAD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "../abi.h"
#include "sys.h"

#define BN_EXPORT __attribute__((visibility("default")))

/* The session, as the environment told it when the program started. */
enum bn_mode {
	BN_OFF = 0,
	BN_NAMESPACED = 'n',
	BN_RELAYED = 'r',
};

/* bn_mode() - what the program is part of; BN_OFF leaves every call alone */
int bn_mode(void);

/* bn_setting() - the value of BN_ENV that bn_mode() was read from */
const char *bn_setting(void);

/* bn_preload() - the path by which the library was loaded */
const char *bn_preload(void);

/* bn_make() - a socket of the session's namespace, or a negative errno */
int bn_make(int domain, int type, int protocol);

/* bn_return() - what a C library returns for a kernel's answer; sets errno */
long bn_return(long ret);

/*
 * bn_next() - the function that this library stands in front of
 * Return: NULL if no library that was loaded after this one has it
 */
void *bn_next(const char *name);

/* BN_REAL() - bn_next() with the type of the function, looked up once */
#define BN_REAL(name)                                                                       \
	__extension__({                                                                     \
		static __typeof__(&name) bn_real_;                                          \
		__typeof__(&name) bn_found_ = __atomic_load_n(&bn_real_, __ATOMIC_ACQUIRE); \
		if (!bn_found_) {                                                           \
			bn_found_ = (__typeof__(&name))bn_next(#name);                      \
			__atomic_store_n(&bn_real_, bn_found_, __ATOMIC_RELEASE);           \
		}                                                                           \
		bn_found_;                                                                  \
	})

/*
 * bn_ask() - ask the broker
 * @request: without version; its size is that of @payload
 * @fd: goes with it, -1 for none
 * @room, @limit: where the bytes after the answer go
 * Return: 0, or a negative errno if there was no answer
 */
int bn_ask(struct bn_request *request, const void *payload, int fd, struct bn_answer *answer, void *room, size_t limit);

/*
 * bn_put_addr() - write an address of the ABI as a socket of family sees it
 * Return: its full length
 */
socklen_t bn_put_addr(const struct bn_answer *answer, int family, struct sockaddr *sa, socklen_t room);

/* bn_get_addr() - read a socket address into a request; false if it is no internet address */
int bn_get_addr(struct bn_request *request, const struct sockaddr *sa, socklen_t len);

/* bn_is_loopback() - whether the address is the laptop's own, mapped ones included */
int bn_is_loopback(const struct bn_request *request);

/* bn_domain() - the family of a socket, or a negative errno */
int bn_domain(int fd);

/* bn_type() - the type of a socket, or a negative errno */
int bn_type(int fd);

/* bn_of_session() - whether the socket is one of another network namespace than the program's */
int bn_of_session(int fd);

/* bn_host_twin() - a socket of the laptop's own that is like fd, or a negative errno */
int bn_host_twin(int fd);

/*
 * bn_swap() - put another socket into the place of fd, with its flags and its
 * registrations with epoll
 * Return: 0 or a negative errno
 */
long bn_swap(int fd, int other);

/*
 * bn_resolves_names() - whether a socket address is that of a name service of the
 * laptop: nscd, Avahi, systemd-resolved, and for resolvectl D-Bus
 */
int bn_resolves_names(const struct sockaddr *sa, socklen_t len);

size_t bn_strlen(const char *s);
int bn_streq(const char *a, const char *b);
void bn_copy(void *to, const void *from, size_t n);

#endif
