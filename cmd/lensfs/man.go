//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// forPackagers writes the manual pages. Not in every binary: the daemon would be half a megabyte larger, by a Markdown parser that root runs.
func forPackagers() []*cobra.Command {
	return []*cobra.Command{{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for _, c := range []*cobra.Command{rootCommand(), lxcfsCommand()} {
				c.DisableAutoGenTag = true
				header := doc.GenManHeader{Section: "8", Source: "lensfs", Manual: "System administration"} // its date is SOURCE_DATE_EPOCH
				if err := doc.GenManTree(c, &header, args[0]); err != nil {
					return fmt.Errorf("manual pages of %s: %w", c.Name(), err)
				}
			}
			return nil
		},
	}}
}
