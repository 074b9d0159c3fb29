/* What kind of program a file is. */
#ifndef BN_IMAGE_H
#define BN_IMAGE_H

#include <stddef.h>

enum bn_image {
	BN_IMAGE_FITS, /* the library will be in it; or the file is none of ours to judge */
	BN_IMAGE_STATIC, /* it has no dynamic loader */
	BN_IMAGE_GO, /* it makes its system calls itself */
	BN_IMAGE_OTHER, /* it is for another kind of machine, such as a 32-bit one */
	BN_IMAGE_PRIVILEGED, /* it is set-user-id: the loader leaves the library out */
};

/* bn_examine() - judge a file, or the interpreter that its first line names */
enum bn_image bn_examine(const char *path);

/* bn_say_image() - one line to standard error about a program that does not fit */
void bn_say_image(const char *path, enum bn_image image);

/* bn_find() - look a command up in PATH, false if it is not there */
int bn_find(char *path, size_t room, const char *file);

/* bn_enter_path() - where borrownet-enter is: beside the library */
int bn_enter_path(char *path, size_t room);

/* bn_helper_path() - the socket of the session's helper */
const char *bn_helper_path(void);

#endif
