// Command lensfs-device-plugin offers the views to a kubelet as a resource. It is a program of its own so that lensfs, whose processes are with every
// container, does not have gRPC in them.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"lensfs/fs"
	"lensfs/oci"
	"lensfs/oci/deviceplugin"

	"github.com/spf13/cobra"
	kubelet "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// version is set by the Makefile.
var version = "devel"

// most is how many devices there may be. The list of them is one message, of which the kubelet takes 4 MiB; ten times the pods of the largest nodes do.
const most = 10_000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lensfs-device-plugin:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var views, dir, device, spec, program string
	var count int
	cmd := &cobra.Command{
		Use:   "lensfs-device-plugin",
		Short: "Offer the views to pods, as the resource " + deviceplugin.Resource,
		Long: "A device plugin of the kubelet's, in the foreground. A pod whose container has the limit " + deviceplugin.Resource + ": 1 is given a CDI device.\n" +
			"No such pod comes to this node while no daemon serves. It registers again when the kubelet is restarted.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if device != oci.DeviceAll && device != oci.DeviceFull {
				return fmt.Errorf("--device: %s or %s, not %q", oci.DeviceAll, oci.DeviceFull, device)
			}
			if count < 1 || count > most {
				return fmt.Errorf("--count: from 1 to %d, not %d", most, count)
			}
			if !filepath.IsAbs(views) || !filepath.IsAbs(dir) {
				return errors.New("--views and --plugin-dir: absolute paths, as the node has them")
			}
			if spec != "" {
				text, err := oci.Spec(views, program, fs.Paths())
				if err != nil {
					return err
				}
				if err := oci.WriteSpec(spec, text); err != nil {
					return fmt.Errorf("--cdi: %w", err)
				}
			}
			ctx := cmd.Context()
			c := deviceplugin.Config{Dir: dir, Count: count, Device: device, Serving: oci.Watch(ctx, views).Now, Log: slog.Default()}
			return deviceplugin.Run(ctx, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&views, "views", "/run/lensfs", "the `directory` of the own views")
	f.StringVar(&dir, "plugin-dir", filepath.Clean(kubelet.DevicePluginPath), "the kubelet's `directory` for device plugins")
	f.StringVar(&device, "device", oci.DeviceAll, "the CDI device that containers get: all, which every runtime mounts, or full, all files by a hook")
	f.IntVar(&count, "count", 1000, "how many containers of the node can have views")
	f.StringVar(&spec, "cdi", "", "write the CDI spec to this `file`, as \"lensfs cdi generate\" does; it is left there")
	f.StringVar(&program, "program", "/usr/bin/lensfs", "where the node has lensfs, for the hook of the device full")
	return cmd
}
