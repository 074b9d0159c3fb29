// Package launch prepares what runs in a session: the environment of a program,
// which is the laptop's with the pod's laid over it, and shells with a marked
// prompt.
package launch

// The variables that tell a program which session it runs in.
const (
	SessionVar   = "BORROWNET_SESSION"
	PodVar       = "BORROWNET_POD"
	NamespaceVar = "BORROWNET_NAMESPACE"
	// HookVar names the socket of the run around, for runs inside it.
	HookVar = "BORROWNET_HOOK"
)

// maxEnv bounds the variables that are taken from the pod, in bytes: execve(2)
// refuses more than about 2 MiB together with the arguments.
const maxEnv = 512 << 10
