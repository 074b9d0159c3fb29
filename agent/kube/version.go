package kube

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Version asks the API server for its version, as "v1.34.4": it answers who
// may ask nothing else. A server that keeps its version to itself gives "".
func (c *Client) Version(ctx context.Context) (string, error) {
	var answer struct {
		GitVersion string `json:"gitVersion"`
	}
	err := c.do(ctx, request{verb: "get", path: "version", resource: "version"}, &answer)
	if status, is := errors.AsType[*apierrors.StatusError](err); is && apierrors.IsForbidden(status) {
		return "", nil
	}
	return answer.GitVersion, c.explain("reach", "API server "+c.Server(), err)
}
