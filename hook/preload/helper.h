/* Asks the helper of a session's namespace for descriptors. */
#ifndef BN_HELPER_H
#define BN_HELPER_H

#include <stddef.h>

/*
 * bn_dial() - connect to a unix socket
 * @path, @len: of the socket, without its final NUL
 * @type: SOCK_STREAM or SOCK_SEQPACKET
 * Return: a close-on-exec descriptor, or a negative errno
 */
int bn_dial(const char *path, size_t len, int type);

/*
 * bn_helper() - ask for a socket, or for a namespace
 * @path, @len: of the helper's socket
 * @domain, @type, @protocol: as of socket(2); the descriptor is close-on-exec if
 * the type says so
 * Return: the descriptor, the lowest that was free, or a negative errno: -ENETDOWN
 * where nobody answers
 */
int bn_helper(const char *path, size_t len, int domain, int type, int protocol);

#endif
