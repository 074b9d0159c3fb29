package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// sizes of messages: some fit a packet, some a frame, some neither.
func sizes() []int32 { return []int32{31415, 9, 2653, 258979} }

// Call calls every kind of method of the service at addr over one connection, and
// prints what it found and then what the service saw of the unary call.
func Call(ctx context.Context, addr string, out io.Writer) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := pb.NewTestServiceClient(conn)
	for _, kind := range []struct {
		name string
		call func(context.Context, pb.TestServiceClient) error
	}{
		{"status", refused}, {"server stream", download}, {"client stream", upload}, {"both streams", pingPong},
	} {
		if err := kind.call(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		fmt.Fprintln(out, kind.name, "ok")
	}
	res, err := c.UnaryCall(ctx, &pb.SimpleRequest{})
	if err != nil {
		return fmt.Errorf("unary: %w", err)
	}
	fmt.Fprintf(out, "unary ok\n%s\n", res.GetPayload().GetBody())
	return nil
}

// refused wants an error of the service to arrive as it is, which is in the trailers.
func refused(ctx context.Context, c pb.TestServiceClient) error {
	const message = "not today: \t 100%"
	_, err := c.UnaryCall(ctx, &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.FailedPrecondition), Message: message}})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != message {
		return fmt.Errorf("got %w, want %v: %s", err, codes.FailedPrecondition, message)
	}
	return nil
}

func ask(sizes ...int32) *pb.StreamingOutputCallRequest {
	req := &pb.StreamingOutputCallRequest{}
	for _, n := range sizes {
		req.ResponseParameters = append(req.ResponseParameters, &pb.ResponseParameters{Size: n})
	}
	return req
}

// receive wants one message of n bytes.
func receive(recv func() (*pb.StreamingOutputCallResponse, error), n int32) error {
	res, err := recv()
	if err != nil {
		return err
	}
	if got := len(res.GetPayload().GetBody()); got != int(n) {
		return fmt.Errorf("got a message of %d bytes, want %d", got, n)
	}
	return nil
}

// ended wants no more messages.
func ended(recv func() (*pb.StreamingOutputCallResponse, error)) error {
	switch _, err := recv(); {
	case err == nil:
		return errors.New("got one message too many")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

func download(ctx context.Context, c pb.TestServiceClient) error {
	stream, err := c.StreamingOutputCall(ctx, ask(sizes()...))
	if err != nil {
		return err
	}
	for _, n := range sizes() {
		if err := receive(stream.Recv, n); err != nil {
			return err
		}
	}
	return ended(stream.Recv)
}

func upload(ctx context.Context, c pb.TestServiceClient) error {
	stream, err := c.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	var sum int32
	for _, n := range sizes() {
		if err := stream.Send(&pb.StreamingInputCallRequest{Payload: &pb.Payload{Body: make([]byte, n)}}); err != nil {
			return err
		}
		sum += n
	}
	res, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if res.GetAggregatedPayloadSize() != sum {
		return fmt.Errorf("%d bytes arrived of %d", res.GetAggregatedPayloadSize(), sum)
	}
	return nil
}

// pingPong sends a request only when the answer to the one before is there.
func pingPong(ctx context.Context, c pb.TestServiceClient) error {
	stream, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for _, n := range sizes() {
		if err := stream.Send(ask(n)); err != nil {
			return err
		}
		if err := receive(stream.Recv, n); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return ended(stream.Recv)
}
