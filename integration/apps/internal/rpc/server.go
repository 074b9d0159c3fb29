// Package rpc serves and calls gRPC's own test service: one unary method, and streams
// in either direction and in both at once.
package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/borrownet/borrownet/integration/apps/internal/observe"
)

// Serve serves on addr without TLS.
func Serve(app, addr string) observe.Server {
	return func(ctx context.Context) error {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		srv := grpc.NewServer()
		pb.RegisterTestServiceServer(srv, &service{app: app})
		defer context.AfterFunc(ctx, srv.Stop)()
		return srv.Serve(l)
	}
}

// service is the test service. Methods that it lacks are answered as unimplemented.
type service struct {
	pb.UnimplementedTestServiceServer
	app string
}

// UnaryCall answers with the observe.Seen of the call as JSON, or with the status
// that the request asks for.
func (s *service) UnaryCall(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if want := req.GetResponseStatus(); want.GetCode() != 0 {
		return nil, status.Error(codes.Code(want.GetCode()), want.GetMessage())
	}
	seen := observe.Seen{App: s.app, Pod: observe.Pod(), Proto: "HTTP/2.0", Method: http.MethodPost, Headers: http.Header{}}
	seen.Path, _ = grpc.Method(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		seen.Remote, seen.Local = p.Addr.String(), p.LocalAddr.String()
	}
	headers, _ := metadata.FromIncomingContext(ctx)
	for key, values := range headers {
		for _, v := range values {
			if key == ":authority" {
				seen.Host = v
				continue
			}
			seen.Headers.Add(key, v)
		}
	}
	text, err := json.Marshal(seen)
	if err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: text}}, nil
}

// StreamingOutputCall sends messages of the sizes that the request names.
func (s *service) StreamingOutputCall(req *pb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	return reply(req, stream.Send)
}

// StreamingInputCall answers with the bytes that it was sent.
func (s *service) StreamingInputCall(stream grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	var sum int32
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		sum += int32(len(req.GetPayload().GetBody()))
	}
}

// FullDuplexCall answers each request when it comes.
func (s *service) FullDuplexCall(stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := reply(req, stream.Send); err != nil {
			return err
		}
	}
}

// maxMessage bounds what a request may ask for.
const maxMessage = 1 << 20

func reply(req *pb.StreamingOutputCallRequest, send func(*pb.StreamingOutputCallResponse) error) error {
	for _, p := range req.GetResponseParameters() {
		if p.GetSize() < 0 || p.GetSize() > maxMessage {
			return status.Errorf(codes.InvalidArgument, "size %d is not between 0 and %d", p.GetSize(), maxMessage)
		}
		if err := send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}
