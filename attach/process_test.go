package attach

import (
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nNSpid:\t4711\t1\nVmPeak: 1\n":  true,
		"NSpid:\t4711\t12\t1\n":                   true,  // in a container in a container
		"NSpid:\t1\n":                             false, // the host's
		"NSpid:\t4711\n":                          false,
		"NSpid:\t4711\t11\n":                      false,
		"Name:\tNSpid:\t2\t1\nNSpid:\t4711\t11\n": false, // a process may be called anything
		"": false,
	} {
		if got := isInit(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

// Only the lines wanted are parsed, and blanks in paths are unescaped.
func TestParseMounts(t *testing.T) {
	const text = `21 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw
210 21 0:49 /ct/a\040b/proc/stat /proc/stat ro master:7 - fuse.lxcfs lxcfs ro
what no kernel writes
`
	mounts, err := parseMounts([]byte(text), func(line string) bool { return strings.HasPrefix(line, "210 ") })
	if err != nil || len(mounts) != 1 {
		t.Fatal(mounts, err)
	}
	m := mounts[0]
	if m.ID != 210 || m.Parent != 21 || m.Root != "/ct/a b/proc/stat" || m.FSType != fsType || m.Optional != "master:7" {
		t.Errorf("%+v", m)
	}
	s := Served{Views: Mount{Dir: "/run/lensfs", Device: "0:49"}}
	if !s.has(m) {
		t.Error("0:49 is the daemon's")
	}
	s.Views.Device = "0:4"
	if s.has(m) {
		t.Error("0:49 is not 0:4")
	}
}
