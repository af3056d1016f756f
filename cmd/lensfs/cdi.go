package main

import (
	"fmt"
	"os"

	"lensfs/fs"
	"lensfs/oci"

	"github.com/spf13/cobra"
)

func cdiCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cdi", Short: "Views as devices of the Container Device Interface: Podman, Docker, containerd, CRI-O"}
	cmd.AddCommand(cdiGenerateCommand())
	return cmd
}

func cdiGenerateCommand() *cobra.Command {
	var output, views, program string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Write the CDI spec for the kernel of this host",
		Long: "Two devices: " + oci.Kind + "=" + oci.DeviceAll + " has the files that every runtime binds; without a daemon containers with it do not start.\n" +
			oci.Kind + "=" + oci.DeviceFull + " has all files, /proc/pressure and the whole directory of CPUs too, by a hook; without a daemon containers with it start without views.",
		Example: "  lensfs cdi generate --output /etc/cdi/lensfs.json\n  podman run --rm --memory 512m --device " + oci.Kind + "=" + oci.DeviceAll + " debian free -m",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if program == "" {
				var err error
				if program, err = os.Executable(); err != nil {
					return err
				}
			}
			text, err := oci.Spec(views, program, fs.Paths())
			if err != nil {
				return err
			}
			if output == "" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			if err := oci.WriteSpec(output, text); err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `file`, which is replaced as a whole, instead of to standard output; runtimes look into /etc/cdi and /var/run/cdi")
	cmd.Flags().StringVar(&views, "views", "/run/lensfs", "the `directory` of the own views")
	cmd.Flags().StringVar(&program, "program", "", "where runtimes find lensfs (default: where this one is)")
	return cmd
}
