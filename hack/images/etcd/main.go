// Command etcd is a single etcd, which Kubernetes' own tests run beside an
// aggregated API server, and the benchmarks beside an API server. It knows those
// of etcd's flags that they set; all else is etcd's default.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	config := embed.NewConfig()
	config.Dir = config.Name + ".etcd"
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	flags.StringVar(&config.Dir, "data-dir", config.Dir, "where the data are")
	flags.Func("listen-client-urls", "where to serve", one(&config.ListenClientUrls))
	flags.Func("advertise-client-urls", "what to tell clients", one(&config.AdvertiseClientUrls))
	flags.Func("listen-peer-urls", "where to serve other members", one(&config.ListenPeerUrls))
	flags.Func("initial-advertise-peer-urls", "what to tell other members", one(&config.AdvertisePeerUrls))
	if err := flags.Parse(args); err != nil {
		return err
	}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("serve: %w", err)
	case <-server.Server.StopNotify():
		return errors.New("etcd ended unasked")
	}
}

// one reads the value of a flag that is a URL.
func one(urls *[]url.URL) func(string) error {
	return func(value string) error {
		parsed, err := url.Parse(value)
		if err != nil {
			return err
		}
		*urls = []url.URL{*parsed}
		return nil
	}
}
