package daemon

import (
	"context"

	"github.com/borrownet/borrownet/cmd/internal/session"
)

// Sessions makes o an Opener.
func Sessions(o *session.Opener) Opener { return opener{o} }

type opener struct{ *session.Opener }

func (o opener) Open(ctx context.Context, req session.Request, step func(string)) (Opening, error) {
	found, err := o.Opener.Open(ctx, req, step)
	if err != nil {
		return nil, err
	}
	return opening{found}, nil
}

type opening struct{ *session.Opening }

func (o opening) Start(ctx context.Context, name string, obs session.Observer) (Session, error) {
	s, err := o.Opening.Start(ctx, name, obs)
	if err != nil {
		return nil, err
	}
	return s, nil
}
