// Package daemon keeps a user's sessions: one process per user, started by the
// first `up`, gone with its last session. It serves HTTP with JSON over a unix
// socket in the runtime directory, to processes of the same user only.
//
//	GET    /version                     Hello
//	POST   /v1/sessions                 UpRequest -> stream of Event, one JSON per line
//	GET    /v1/sessions[?measure=1]     []session.Status
//	GET    /v1/sessions/{name}          session.Status
//	GET    /v1/sessions/{name}/place    session.Place
//	GET    /v1/sessions/{name}/names?name=NAME&type=TYPE   dnsproxy.Explanation
//	GET    /v1/sessions/{name}/way[?host=HOST]   session.Way
//	GET    /v1/sessions/{name}/changes  stream of Event, until the session has ended
//	DELETE /v1/sessions/{name}[?stop-agent=1]   Downed
//
// Every answer that is not 2xx is a fault.Error. A stream that breaks off ends
// its session if the request owned it, and aborts it while it is being set up.
//
// Two locks keep clients and daemons apart. Who starts a daemon holds the start
// lock until the daemon has its request, and a daemon ends only while it holds
// that lock, so that no request meets a daemon that is leaving. The daemon holds
// the daemon lock for its lifetime: there is never a second one.
package daemon
