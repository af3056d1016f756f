//go:build faults

package fs

import (
	"os"
	"strings"
)

// fault ends or hangs the worker over a file, if LENSFS_FAULT names it: "proc/swaps exit", "proc/swaps hang". The tests need requests that no worker
// can answer; nobody builds this for anything else.
func fault(f *file) {
	switch how, _ := strings.CutPrefix(os.Getenv("LENSFS_FAULT"), f.path+" "); how {
	case "exit":
		os.Exit(3)
	case "hang":
		select {}
	}
}
