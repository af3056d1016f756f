package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"path/filepath"
	"syscall"

	"lensfs/fs"
	"lensfs/oci"
	"lensfs/oci/nri"

	"github.com/spf13/cobra"
)

func nriCommand() *cobra.Command {
	var views, socket, index, given, hook string
	cmd := &cobra.Command{
		Use:   "nri",
		Short: "Have containerd or CRI-O give the views to the containers that they make",
		Long: "A plugin of the Node Resource Interface, in the foreground. It connects again when the runtime is restarted. Containers start without views while it\n" +
			"does not run, and while no daemon serves. Annotations of the pod or the container select:\n" +
			"  " + nri.Annotation + ": \"off\"                  no container of the pod\n" +
			"  " + nri.Annotation + "/container.NAME: \"on\"    that container of the pod",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if given != "on" && given != "off" {
				return fmt.Errorf("--default: on or off, not %q", given)
			}
			if len(index) != 2 || index < "00" || index > "99" {
				return fmt.Errorf("--index: two digits, not %q", index)
			}
			if !filepath.IsAbs(views) || hook != "" && !filepath.IsAbs(hook) {
				return errors.New("--views and --hook: absolute paths, as the runtime sees them")
			}
			ctx, stop := signal.NotifyContext(orBackground(cmd.Context()), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			c := nri.Config{Socket: socket, Index: index, Binds: oci.Binds(views, fs.Paths()), Default: given == "on", Log: slog.Default()}
			if hook != "" {
				c.Hook = append([]string{hook}, oci.HookArgs(views)...)
			}
			c.Serving = oci.Watch(ctx, views).Now
			return nri.Run(ctx, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", "/var/run/nri/nri.sock", "the runtime's NRI `socket`")
	f.StringVar(&views, "views", "/run/lensfs", "the `directory` of the own views")
	f.StringVar(&given, "default", "on", "what containers get whose annotations say nothing: on or off")
	f.StringVar(&hook, "hook", "", "give all files, by a createContainer hook that starts lensfs from this `path` of the host's, instead of those that every runtime mounts")
	f.StringVar(&index, "index", "50", "the place among the plugins, two digits: those with lower ones are asked first")
	return cmd
}
