package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// containerd is the store of a node.
type containerd struct {
	images  images.ImagesClient
	content content.ContentClient
}

func newContainerd(conn grpc.ClientConnInterface) *containerd {
	return &containerd{images: images.NewImagesClient(conn), content: content.NewContentClient(conn)}
}

// inNamespace names the one that the kubelet's images are in.
func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io")
}

func (c *containerd) find(ctx context.Context, name string) (blob, error) {
	response, err := c.images.Get(inNamespace(ctx), &images.GetImageRequest{Name: name})
	if err != nil {
		return blob{}, missing(err)
	}
	target := response.GetImage().GetTarget()
	return blob{digest: target.GetDigest(), mediaType: target.GetMediaType(), size: target.GetSize()}, nil
}

func (c *containerd) stat(ctx context.Context, digest string) (blob, error) {
	response, err := c.content.Info(inNamespace(ctx), &content.InfoRequest{Digest: digest})
	if err != nil {
		return blob{}, missing(err)
	}
	return blob{digest: digest, size: response.GetInfo().GetSize()}, nil
}

func (c *containerd) copy(ctx context.Context, to io.Writer, digest string) error {
	ctx, cancel := context.WithCancel(inNamespace(ctx))
	defer cancel()
	stream, err := c.content.Read(ctx, &content.ReadContentRequest{Digest: digest})
	if err != nil {
		return missing(err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return missing(err)
		}
		if _, err := to.Write(part.GetData()); err != nil {
			return fmt.Errorf("send %s: %w", digest, err)
		}
	}
}

func missing(err error) error {
	if status.Code(err) == codes.NotFound {
		return errMissing
	}
	return fmt.Errorf("ask containerd: %w", err)
}
