/* Sockets of the laptop itself, whose flows the daemon relays: mode BN_RELAYED. */
#ifndef BN_RELAY_H
#define BN_RELAY_H

#include <sys/socket.h>

#include "preload.h"

/* The kernel is to do it; no errno is that. */
#define BN_NATIVE (-4096L)

/* bn_relay_socket() - a socket that does not reach the laptop's network, or a negative errno */
long bn_relay_socket(int domain, int type, int protocol);

/* bn_relay_connect() - connect it to the session: 0, a negative errno or BN_NATIVE */
long bn_relay_connect(int fd, const struct sockaddr *sa, socklen_t len);

/*
 * bn_relay_target() - where a datagram for sa is sent to
 * @to: the far end's address; unchanged if BN_NATIVE is returned
 * Return: 0, a negative errno or BN_NATIVE
 */
long bn_relay_target(int fd, const struct sockaddr *sa, socklen_t len, struct sockaddr_storage *to, socklen_t *to_len);

/*
 * bn_relay_name() - replace the address of a far end by the destination that it
 * stands for; others stay
 * @room: of sa; @len: its full length, in and out
 */
void bn_relay_name(int fd, struct sockaddr *sa, socklen_t room, socklen_t *len);

#endif
