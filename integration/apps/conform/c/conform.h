/*
 * What the files of this program share: results, connections, and the groups of checks.
 */
#include <netinet/in.h>
#include <sys/socket.h>

#define POD	"192.0.2.10"
#define ORDERS	"orders.shop.svc.cluster.local"
#define LEDGER	"198.51.100.22"
#define SILENT	"203.0.113.1"
#define GONE	"203.0.113.2"

extern char *self;
extern int tcp_port, udp_port, low_port;

const char *error(int e);
/* say() - a result; one write, because children say things too */
__attribute__((format(printf, 2, 3))) void say(const char *check, const char *format, ...);

int fill(struct sockaddr_storage *ss, const char *host, int port);
/* patient() - calls on fd fail after half a minute */
int patient(int fd);

/* dial() - a blocking connect; Return: the descriptor, or -errno */
int dial(const char *host, int port);

void refused(const char *check, const char *host, int port);
/* hear() - all that fd has to say, which is closed; Return: a static buffer */
const char *hear(int fd);

int port_of(int fd);
/* who() - who we are to a server of the cluster, without the port */
const char *who(void);

/* listener() - listens at "" for no bind(); Return: the descriptor, or -1 after saying why */
int listener(const char *check, const char *at, int port, int v6only);

/* groups of checks */
void parallel(void);
void names(void);
void epolls(void);
void datagrams(void);
void local(void);
void listeners(void);
void sockets(void);
void interfaces(void);
void pass(int fd);
void children(void);
void orphan(void);
