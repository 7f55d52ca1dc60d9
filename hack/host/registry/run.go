package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Options of a registry.
type Options struct {
	// Containerd is the path of its socket.
	Containerd string
	// Address to serve on, on loopback.
	Address string
}

// Run serves until the context ends.
func Run(ctx context.Context, o Options) error {
	conn, err := grpc.NewClient("unix://"+o.Containerd, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach containerd: %w", err)
	}
	defer conn.Close()
	server := &http.Server{
		Addr:              o.Address,
		Handler:           newHandler(newContainerd(conn)),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve images: %w", err)
	}
	return nil
}
