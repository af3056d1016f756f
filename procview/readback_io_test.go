package procview

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
)

// readDiskstats has procfs read a text of the kernel's form.
func readDiskstats(t testing.TB, text []byte) []blockdevice.Diskstats {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "diskstats"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	fs, err := blockdevice.NewFS(dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := fs.ProcDiskstats()
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return devices
}

// checkDiskstats checks that the devices are the host's, in its order and with its columns, and that none is there for nothing.
func checkDiskstats(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/diskstats"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(text, hostText) {
		return
	}
	host := readDiskstats(t, hostText)
	got := readDiskstats(t, text)
	if lines := bytes.Count(text, []byte("\n")); lines != len(got) {
		t.Errorf("diskstats: procfs sees %d devices in %d lines", len(got), lines)
	}
	for _, d := range got {
		for len(host) > 0 && host[0].Info != d.Info {
			host = host[1:]
		}
		if len(host) == 0 {
			t.Fatalf("diskstats: %s is not the host's, or not in its place", d.DeviceName)
		}
		if d.IoStatsCount != host[0].IoStatsCount {
			t.Errorf("diskstats: %s has %d columns, the host's %d", d.DeviceName, d.IoStatsCount, host[0].IoStatsCount)
		}
		if d.IOStats == (blockdevice.IOStats{}) {
			t.Errorf("diskstats: %s was not used", d.DeviceName)
		}
		if want := fmt.Sprintf("%4d %7d %s ", d.MajorNumber, d.MinorNumber, d.DeviceName); !strings.Contains("\n"+string(text), "\n"+want) { // block/genhd.c
			t.Errorf("diskstats: %s is not in the kernel's form:\n%s", d.DeviceName, text)
		}
	}
}

// checkSwaps checks that there is the host's header, and at most one area unless the text is the host's.
func checkSwaps(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/swaps"))
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := bytes.Cut(hostText, []byte("\n"))
	if !bytes.HasPrefix(text, append(header, '\n')) {
		t.Errorf("swaps: the header is not the host's:\n%s", text)
	}
	areas, err := readBack(t, "swaps", text).Swaps()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(text, hostText) {
		return
	}
	if len(areas) > 1 || bytes.Count(text, []byte("\n")) != len(areas)+1 {
		t.Errorf("swaps: %d areas:\n%s", len(areas), text)
	}
	for _, a := range areas {
		if want := (procfs.Swap{Filename: "none", Type: "virtual", Size: a.Size, Used: a.Used}); *a != want || a.Size == 0 || a.Used > a.Size {
			t.Errorf("swaps: %+v", *a)
		}
	}
}

// checkSlabinfo checks that there is a header, the host's, and that procfs reads no cache.
func checkSlabinfo(t *testing.T, root string, text []byte) {
	t.Helper()
	hostText, err := os.ReadFile(filepath.Join(root, "proc/slabinfo"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(text, []byte("slabinfo - version: 2.1\n# name ")) || !bytes.HasPrefix(hostText, text) || bytes.Count(text, []byte("\n")) != 2 {
		t.Errorf("slabinfo: %q", text)
	}
	slabs, err := readBack(t, "slabinfo", text).SlabInfo()
	if err != nil || len(slabs.Slabs) != 0 {
		t.Errorf("slabinfo: procfs reads %d caches, %v", len(slabs.Slabs), err)
	}
}

func checkPressure(t *testing.T, resource string, text []byte) {
	t.Helper()
	psi, err := readBack(t, "pressure/"+resource, text).PSIStatsForResource(resource)
	if err != nil || psi.Some == nil || resource != "cpu" && psi.Full == nil { // cpu has it since Linux 5.13
		t.Errorf("pressure/%s: %v:\n%s", resource, err, text)
	}
}

// TestOneSwap checks that meminfo and swaps agree in every case about how much swap there is and is used.
func TestOneSwap(t *testing.T) {
	for _, name := range caseNames(t) {
		root := t.TempDir()
		copyTree(t, filepath.Join(root, "proc"), filepath.Join("testdata/cases", name, "want"))
		dir := filepath.Join("testdata/cases", name, "want")
		swaps, err := os.ReadFile(filepath.Join(dir, "swaps"))
		if err != nil {
			t.Fatal(err)
		}
		areas, err := readBack(t, "swaps", swaps).Swaps()
		if err != nil {
			t.Fatal(err)
		}
		var size, used int
		for _, a := range areas {
			size += a.Size
			used += a.Used
		}
		total, free := hostLine(t, root, "SwapTotal"), hostLine(t, root, "SwapFree")
		if uint64(size) != total || uint64(used) != total-free {
			t.Errorf("%s: swaps has %d kB and uses %d of them, meminfo has %d and %d free", name, size, used, total, free)
		}
	}
}
