package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/borrownet/borrownet/agent/kube/api"
)

// plan is what Attach would do to a target.
type plan struct {
	target  *Target
	spec    AgentSpec
	want    *api.EphemeralContainer
	reuses  string   // name of the agent that is there and fits, or empty
	notes   []string // what the user should know
	answers []Access // of the access reviews; nil if they could not be made
	refusal error    // of the server-side dry run
	asked   bool     // there was one
}

// Plan returns, as YAML, every object that Attach would change, as the API
// server would store it, and as comments what else it needs and whether the
// user may. Nothing is changed. The error says why Attach would fail; the text
// may be there as well.
func (c *Client) Plan(ctx context.Context, t *Target, spec AgentSpec) ([]byte, error) {
	spec, err := spec.complete()
	if err != nil {
		return nil, err
	}
	object := "pod " + t.Namespace + "/" + t.Pod
	if err := spec.cannotCapture(object); err != nil {
		return nil, err
	}
	probe := c.startProbe(ctx, t)
	defer probe.end()
	pod, err := c.targetPod(ctx, "attach to", t)
	if err != nil {
		return nil, err
	}
	spec.Stdio = probe.answer()
	p := &plan{target: t, spec: spec}
	var note string
	if p.want, note, err = c.build(ctx, pod, t.Container, spec); err != nil {
		return nil, c.explain("attach to", object, err)
	}
	p.notes = slices.Concat(nonEmpty(note), nonEmpty(proxyTrouble(pod)), nonEmpty(headroom(pod)))
	if spec.Stdio {
		p.notes = append(p.notes, noteStdio)
	}
	p.reuses, _ = reusable(pod, p.want)

	if p.answers, err = c.reviewAll(ctx, t.Namespace, p.needed()); err != nil {
		if ctx.Err() != nil {
			return nil, c.explain("attach to", object, err)
		}
		p.answers = nil
		c.log.Debug("review access", "namespace", t.Namespace, "err", err)
	}
	lacking := c.lacking(ctx, t.Namespace, p.answers)
	if p.reuses == "" && p.may("patch") {
		p.ask(ctx, c, pod)
	}
	text, err := p.text()
	if err != nil {
		return nil, err
	}
	if lacking != nil {
		return text, lacking
	}
	a := &attachment{Client: c, target: t, spec: spec}
	return text, a.explainNetRaw(p.refusal)
}

// needed are the permissions that the plan takes.
func (p *plan) needed() []Access {
	return slices.DeleteFunc(needed(p.spec), func(a Access) bool {
		return p.reuses != "" && (a.Verb == "patch" || a.Feature == TargetAsImage)
	})
}

// may reports whether no review says that the user may not use a verb.
func (p *plan) may(verb string) bool {
	return !slices.ContainsFunc(p.answers, func(a Access) bool { return a.Verb == verb && !a.Allowed })
}

// ask lets the API server judge and complete the agent's container.
func (p *plan) ask(ctx context.Context, c *Client, pod *api.Pod) {
	var after *api.Pod
	p.asked = true
	if after, p.refusal = c.ask(ctx, pod, p.want, p.spec.NetRaw); p.refusal != nil {
		return
	}
	for i := range after.Spec.EphemeralContainers {
		if after.Spec.EphemeralContainers[i].Name == p.want.Name {
			p.want = &after.Spec.EphemeralContainers[i]
		}
	}
}

func (p *plan) text() ([]byte, error) {
	var b strings.Builder
	comment := func(format string, args ...any) { b.WriteString("# " + oneLine(fmt.Sprintf(format, args...)) + "\n") }
	switch {
	case p.reuses != "":
		comment("pod %s/%s: nothing would change: the agent %s is there and fits", p.target.Namespace, p.target.Pod, p.reuses)
	case !p.asked:
		comment("patch of pods/ephemeralcontainers, field manager %s; not judged by the API server, for lack of the right to ask", FieldManager)
	case p.refusal != nil:
		comment("patch of pods/ephemeralcontainers, field manager %s; refused by the API server in a dry run", FieldManager)
	default:
		comment("patch of pods/ephemeralcontainers, field manager %s; accepted by the API server in a dry run", FieldManager)
	}
	if p.spec.Image == TargetImage && p.reuses == "" {
		comment("then the agent's program is sent through pods/attach and checked in the container before it is executed")
	}
	for _, note := range p.notes {
		comment("%s", note)
	}
	if p.answers == nil {
		comment("rights: the API server did not say what you may do")
	}
	for _, a := range p.answers {
		answer := "yes"
		if !a.Allowed {
			answer = "MISSING"
		}
		comment("right to %s: %s", a, answer)
	}
	if p.reuses != "" {
		return []byte(b.String()), nil
	}
	doc, err := p.document()
	return append([]byte(b.String()), doc...), err
}

func (p *plan) document() ([]byte, error) {
	type meta struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
	type spec struct {
		EphemeralContainers []any `json:"ephemeralContainers"`
	}
	var container any = p.want
	if p.want.Stored != nil {
		container = p.want.Stored
	}
	return document(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   meta   `json:"metadata"`
		Spec       spec   `json:"spec"`
	}{"v1", "Pod", meta{p.target.Pod, p.target.Namespace}, spec{[]any{container}}})
}
