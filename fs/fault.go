//go:build faults

package fs

import (
	"os"
	"slices"
	"strings"
)

// fault ends or hangs the worker over a file, if LENSFS_FAULT names it: "proc/swaps exit", "proc/swaps hang"; with "held" it hangs over a READ alone, which
// has a page of the kernel's locked. The tests need requests that no worker can answer; nobody builds this for anything else.
func fault(f *file) { fail(f, "exit", "hang") }

// faultHeld is fault where a page is locked.
func faultHeld(f *file) { fail(f, "held") }

func fail(f *file, hows ...string) {
	how, _ := strings.CutPrefix(os.Getenv("LENSFS_FAULT"), f.path+" ")
	if !slices.Contains(hows, how) {
		return
	}
	switch how {
	case "exit":
		os.Exit(3)
	case "hang", "held":
		select {}
	}
}
