// Package kubelettest is the side of the kubelet's that device plugins see, for tests.
package kubelettest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Kubelet takes the registrations of plugins, as the kubelet's pkg/kubelet/cm/devicemanager does.
type Kubelet struct {
	api.UnimplementedRegistrationServer
	dir     string
	refuse  error
	plugins chan *Plugin
	server  *grpc.Server
	ctx     context.Context
	cancel  context.CancelFunc
	streams sync.WaitGroup

	mu     sync.Mutex
	disown func() // ends the connection to the last plugin
}

// Start starts one. As the kubelet it removes first what is in its directory. With refuse it takes no plugin.
func Start(dir string, refuse error) (*Kubelet, error) {
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		return nil, err
	}
	k := &Kubelet{dir: dir, refuse: refuse, plugins: make(chan *Plugin, 16), server: grpc.NewServer()}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	api.RegisterRegistrationServer(k.server, k)
	go k.server.Serve(listener)
	return k, nil
}

// Stop ends it, and with it its connections to plugins.
func (k *Kubelet) Stop() {
	k.cancel()
	k.server.Stop()
	k.streams.Wait()
}

// Plugins are those that registered, in their order.
func (k *Kubelet) Plugins() <-chan *Plugin { return k.plugins }

// Register is what plugins call. The later of two that offer the same takes the place of the earlier.
func (k *Kubelet) Register(ctx context.Context, r *api.RegisterRequest) (*api.Empty, error) {
	if k.refuse != nil {
		return nil, k.refuse
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.dir, r.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	p := &Plugin{Request: r, client: api.NewDevicePluginClient(conn), lists: make(chan []*api.Device, 16)}
	if p.Options, err = p.client.GetDevicePluginOptions(ctx, &api.Empty{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	watch, cancel := context.WithCancel(k.ctx)
	stream, err := p.client.ListAndWatch(watch, &api.Empty{})
	if err != nil {
		cancel()
		return nil, errors.Join(err, conn.Close())
	}
	k.mu.Lock()
	if k.disown != nil {
		k.disown()
	}
	k.disown = cancel
	k.mu.Unlock()
	k.streams.Go(func() {
		defer conn.Close()
		defer cancel()
		defer close(p.lists)
		for {
			list, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case p.lists <- list.GetDevices():
			case <-watch.Done():
				return
			}
		}
	})
	k.plugins <- p
	return &api.Empty{}, nil
}

// Plugin is one that has registered.
type Plugin struct {
	Request *api.RegisterRequest
	Options *api.DevicePluginOptions
	client  api.DevicePluginClient
	lists   chan []*api.Device
}

// Lists are of its devices. They end when the connection does.
func (p *Plugin) Lists() <-chan []*api.Device { return p.lists }

// Allocate asks for some devices for a container, as the kubelet does: one container at a time.
func (p *Plugin) Allocate(ctx context.Context, ids ...string) (*api.ContainerAllocateResponse, error) {
	r, err := p.client.Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	if n := len(r.GetContainerResponses()); n != 1 {
		return nil, fmt.Errorf("%d answers for one container", n)
	}
	return r.GetContainerResponses()[0], nil
}
