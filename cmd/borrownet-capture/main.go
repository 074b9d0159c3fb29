// Command borrownet-capture opens one packet socket for the agent and ends. It is a program of its own because the
// capability that this takes, CAP_NET_RAW, belongs to its file in the agent's image, not to the agent.
package main

import (
	"os"

	"github.com/borrownet/borrownet/agent/capture"
)

func main() { os.Exit(capture.HelperMain()) }
