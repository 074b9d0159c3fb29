package main

import (
	"net/netip"
	"strings"

	"github.com/borrownet/borrownet/agent/kube"
	"github.com/borrownet/borrownet/cmd/internal/session"
)

// cloud says which identity of a cloud one has now, if any, and what was asked for
// beyond that.
func (u *ui) cloud(st session.Status) {
	for _, id := range st.Cloud.Identities {
		u.say("cloud identity: %s", cloudText(id))
	}
	if st.Cloud.Unknown != "" {
		u.warn("the pod's cloud identity is unknown: "+st.Cloud.Unknown, unknownHint(st))
	}
	if len(st.Metadata) > 0 {
		u.warn(metadataText(st.Metadata)+" may take programs for the pod's node and hand out its identity, as asked with --metadata", "")
	}
}

// unknownHint says how what is not known can be got all the same.
func unknownHint(st session.Status) string {
	return "borrownet rbac --gke -n " + st.Target.Namespace + " prints the Role that tells; if it has one, borrownet up again with --metadata 169.254.169.254"
}

// cloudRows are the identities for status. That there is none is one as well: then
// what clouds answer from the pod's node is refused.
func cloudRows(st session.Status) [][2]string {
	var rows [][2]string
	for _, id := range st.Cloud.Identities {
		rows = append(rows, [2]string{"cloud", cloudText(id)})
	}
	if st.Cloud.Unknown != "" {
		rows = append(rows, [2]string{"cloud", "unknown: " + st.Cloud.Unknown})
	} else if len(rows) == 0 {
		rows = append(rows, [2]string{"cloud", "no identity found; metadata services, which would take programs for the node, are refused"})
	}
	if len(st.Metadata) > 0 {
		rows = append(rows, [2]string{"metadata", metadataText(st.Metadata) + ", as asked; may hand out the node's identity"})
	}
	return rows
}

// cloudText is one identity and how it is had.
func cloudText(id kube.CloudIdentity) string {
	text := id.System
	if id.Account != "" {
		text += ", " + id.Account
	}
	text += " (" + id.By + ")"
	if len(id.Endpoints) == 0 {
		return text + ", had with a token; the node's metadata service is refused"
	}
	return text + ", handed out to the pod at " + metadataText(id.Endpoints)
}

func metadataText(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}
