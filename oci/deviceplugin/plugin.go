// Package deviceplugin is a device plugin of the kubelet's: it offers the views as a resource that pods ask for, and answers with the name of a CDI
// device, which the kubelet passes on to the runtime.
//
// It imports gRPC, which costs every process that has it memory from the start. So it is not in lensfs itself.
package deviceplugin

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"lensfs/oci"

	"google.golang.org/grpc"
	kubelet "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Resource is what pods ask for. It has the name of the CDI kind, of which the devices are.
const Resource = oci.Kind

// Config is what the plugin does.
type Config struct {
	Dir     string      // the kubelet's for device plugins: its socket is there, and ours
	Count   int         // how many containers of the node can have views at the same time; there is no reason to run short
	Device  string      // the CDI device that each of them gets: oci.DeviceAll or oci.DeviceFull
	Serving func() bool // does a daemon answer? It has to know at once
	Log     *slog.Logger
}

// looked is how often we look whether the daemon answers, and whether our socket is still there.
const looked = time.Second

// answers is what the kubelet asks.
type answers struct {
	kubelet.UnimplementedDevicePluginServer
	Config
	left chan struct{} // the kubelet listens no more
}

func (a *answers) GetDevicePluginOptions(context.Context, *kubelet.Empty) (*kubelet.DevicePluginOptions, error) {
	return &kubelet.DevicePluginOptions{}, nil // no question before a start, none about which of the devices
}

// ListAndWatch tells which devices there are for as long as the kubelet listens: at once, and again whenever the daemon comes or goes.
func (a *answers) ListAndWatch(_ *kubelet.Empty, to grpc.ServerStreamingServer[kubelet.ListAndWatchResponse]) error {
	defer func() {
		select {
		case a.left <- struct{}{}:
		default: // is known
		}
	}()
	tick := time.NewTicker(looked)
	defer tick.Stop()
	for told, first := false, true; ; first = false {
		if serving := a.Serving(); first || serving != told {
			if err := to.Send(a.list(serving)); err != nil {
				return err
			}
			told = serving
			a.Log.Info("the kubelet was told", "devices", a.Count, "healthy", serving)
		}
		select {
		case <-to.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *answers) list(healthy bool) *kubelet.ListAndWatchResponse {
	health := kubelet.Unhealthy
	if healthy {
		health = kubelet.Healthy
	}
	devices := make([]*kubelet.Device, a.Count)
	for i := range devices {
		devices[i] = &kubelet.Device{ID: fmt.Sprintf("view-%d", i), Health: health}
	}
	return &kubelet.ListAndWatchResponse{Devices: devices}
}

// Allocate names the CDI device. All are equal: which of them a container was given does not matter, nor how many.
//
// It does not ask whether the daemon answers. With an error the pod would have failed for good; as it is, the kubelet tries to make the container
// until it can.
func (a *answers) Allocate(_ context.Context, r *kubelet.AllocateRequest) (*kubelet.AllocateResponse, error) {
	answer := &kubelet.AllocateResponse{}
	for range r.GetContainerRequests() {
		answer.ContainerResponses = append(answer.ContainerResponses, &kubelet.ContainerAllocateResponse{
			CdiDevices: []*kubelet.CDIDevice{{Name: Resource + "=" + a.Device}},
		})
	}
	return answer, nil
}
