package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	kubelet "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Socket is ours, in the kubelet's directory.
const Socket = "lensfs.sock"

// kubeletSocket is the kubelet's, there.
const kubeletSocket = "kubelet.sock"

// retry is how long a kubelet that is not there, or that refuses us, is left alone.
const retry = time.Second

// patience is how long it may take to answer: it asks us before it does.
const patience = 10 * time.Second

// errReplaced ends the plugin: two that replace each other would never come to rest.
var errReplaced = errors.New("another device plugin has taken the place of this one")

// Run is the plugin until ctx ends, or another takes its place, which is the only error. It registers again with every kubelet that comes.
func Run(ctx context.Context, c Config) error {
	last := ""
	for {
		registered, err := c.register(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errReplaced) {
			return err
		}
		if registered {
			last = ""
		}
		if text := err.Error(); text != last { // once, not every second
			c.Log.Warn("not registered with the kubelet: it starts no pod that asks for "+Resource, "err", err)
			last = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

// register is the plugin for as long as a kubelet lives. When that ends it listens no more; when another starts it removes all sockets from its directory,
// ours too, and knows of no plugin.
func (c *Config) register(ctx context.Context) (registered bool, err error) {
	kubelets := filepath.Join(c.Dir, kubeletSocket)
	if _, err := os.Lstat(kubelets); err != nil { // nothing to make a socket for
		return false, err
	}
	ourPath := filepath.Join(c.Dir, Socket)
	if err := os.Remove(ourPath); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that was killed left it
		return false, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: ourPath})
	if err != nil {
		return false, err
	}
	listener.SetUnlinkOnClose(false) // it might be another's by then
	ours, err := identify(ourPath)
	if err != nil {
		listener.Close()
		return false, err
	}
	server := grpc.NewServer()
	left := make(chan struct{}, 1)
	kubelet.RegisterDevicePluginServer(server, &answers{Config: *c, left: left})
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		if now, gone := identify(ourPath); gone == nil && ours.same(now) {
			os.Remove(ourPath)
		}
	}()
	if err := tell(ctx, kubelets); err != nil {
		return false, err
	}
	c.Log.Info("registered with the kubelet", "resource", Resource)
	for {
		var leftUs error
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case err := <-ended:
			return true, err
		case <-left: // it has ended, or taken another plugin for us
			leftUs = errors.New("the kubelet does not listen any more")
		case <-time.After(looked):
		}
		switch now, err := identify(ourPath); {
		case errors.Is(err, fs.ErrNotExist):
			return true, fmt.Errorf("the kubelet has removed our socket: %w", err)
		case err != nil:
			return true, err
		case !ours.same(now):
			return true, errReplaced
		case leftUs != nil:
			return true, leftUs
		}
	}
}

// tell registers with the kubelet, which connects to our socket before it answers.
func tell(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	defer conn.Close()
	request := &kubelet.RegisterRequest{Version: kubelet.Version, Endpoint: Socket, ResourceName: Resource, Options: &kubelet.DevicePluginOptions{}}
	if _, err := kubelet.NewRegistrationClient(conn).Register(ctx, request); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	return nil
}

// identity is of a file under a path. The inode alone does not do: a file system gives the next file the number of the last.
type identity struct {
	info os.FileInfo
}

func identify(path string) (identity, error) {
	info, err := os.Lstat(path)
	return identity{info}, err
}

func (i identity) same(other identity) bool {
	return os.SameFile(i.info, other.info) && i.info.ModTime().Equal(other.info.ModTime())
}
