package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// listener is a net.Listener that only this process can reach: its dial makes
// a pair of connected sockets and hands one end to Accept. Kernel sockets and
// not net.Pipe, because streams need buffers, deadlines and half-close.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return address("kubelet") }

func (l *listener) dial(ctx context.Context, target string) (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	client, server, err := socketPair(address(target))
	if err != nil {
		return nil, err
	}
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.done:
		err = net.ErrClosed
	}
	_ = client.Close()
	_ = server.Close()
	return nil, err
}

// address is what was dialed: the address of a virtual node, HOST:PORT.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// conn is one end of a socket pair. Both ends know what was dialed.
type conn struct {
	*net.UnixConn
	target address
}

func (c *conn) LocalAddr() net.Addr  { return c.target }
func (c *conn) RemoteAddr() net.Addr { return c.target }

func socketPair(target address) (client, server *conn, err error) {
	// Without the lock a child process that is forked between the two calls
	// would inherit the sockets. SOCK_CLOEXEC would do, but not on every system
	// that developers use.
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	client, err = newConn(fds[0], target)
	if err != nil {
		_ = syscall.Close(fds[1])
		return nil, nil, err
	}
	server, err = newConn(fds[1], target)
	if err != nil {
		_ = client.Close()
		return nil, nil, err
	}
	return client, server, nil
}

// newConn owns the descriptor from here on.
func newConn(fd int, target address) (*conn, error) {
	file := os.NewFile(uintptr(fd), "kubelet")
	defer func() { _ = file.Close() }()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("making a connection of a socket: %w", err)
	}
	unix, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("making a connection of a socket: got a %T", c)
	}
	return &conn{UnixConn: unix, target: target}, nil
}
