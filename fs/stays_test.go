// Under the race detector this takes minutes, and it has one goroutine.

//go:build !race

package fs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lensfs/docs"
)

// TestWhatStaysTheHosts changes every value of every file of a host, one after the other, its other containers' included, and looks at what changes
// for a container. That has to be a row of docs/what-stays-the-hosts.md; and each row has to be true.
func TestWhatStaysTheHosts(t *testing.T) {
	table := docs.Stays()
	seen := map[string]map[string]bool{} // when → what of the table was found there
	const noSwapLimit = "no swap limit"
	desktop := []string{"base/desktop", "base/v2", "cases/v2"}
	shapes := []stayShape{
		{name: "v2", bases: desktop, walk: true, when: []string{noSwapLimit}},
		{name: "v1", bases: []string{"base/desktop", "base/v1", "cases/v1"}},
		{name: "quota above", bases: desktop, when: []string{noSwapLimit, "a group above has a quota"}, only: "sys/fs", add: map[string]string{
			"sys/fs/cgroup/system.slice/cpu.max":  "100000 100000\n",
			"sys/fs/cgroup/system.slice/cpu.stat": "usage_usec 900000000\nuser_usec 500000000\nsystem_usec 400000000\nnr_periods 9\nnr_throttled 3\nthrottled_usec 5000000\n",
		}},
		{name: "no memory limit", bases: []string{"base/desktop", "base/v2", "cases/no-limit"}, when: []string{"no memory limit"}, only: "proc/"},
		{name: "nobody samples", bases: desktop, views: Views{NoLoadavg: true}, when: []string{noSwapLimit, "`--loadavg=false`"}, only: "proc/"},
		{name: "hidden CPUs", bases: desktop, views: Views{HideCPUs: true}, when: []string{noSwapLimit}, only: cpuDirPath},
		{name: "arm64", bases: []string{"base/arm64", "base/v2", "cases/arm64"}, only: "proc/"},
		{name: "s390x", bases: []string{"base/s390x", "base/v2", "cases/s390x"}, only: "proc/"},
	}
	for _, s := range shapes {
		if !s.views.HideCPUs {
			s.when = append(s.when, "without `--hide-cpus`")
		}
		for field, how := range s.fromTheHost(t) {
			found := false
			for _, row := range table {
				if pattern, ok := row.Covers(field.file, field.name); ok && (row.When == "" || slices.Contains(s.when, row.When)) {
					found = true
					if seen[row.When] == nil {
						seen[row.When] = map[string]bool{}
					}
					seen[row.When][row.File+" "+pattern] = true
				}
			}
			if !found {
				t.Errorf("%s: %s of %s comes from the host (%s), and no row of docs/what-stays-the-hosts.md says so", s.name, field.name, field.file, how)
			}
		}
	}
	for _, row := range table {
		for _, pattern := range row.Fields {
			if !seen[row.When][row.File+" "+pattern] {
				t.Errorf("docs/what-stays-the-hosts.md says of %s that %q is the host's (%s): it is not", row.File, pattern, row.When)
			}
		}
	}
}

// stayShape is a kind of container on a kind of host.
type stayShape struct {
	name  string
	bases []string          // trees of procview's testdata, laid over one another
	add   map[string]string // and these
	views Views
	when  []string // what the table calls it
	walk  bool     // look at the directory of CPUs for every change, not only for those in it
	only  string   // beneath here the host is changed, where the rest is as in another shape
}

// fromTheHost gives the fields that change for the container when something of the host does, and what that was.
func (s stayShape) fromTheHost(t *testing.T) map[stayField]string {
	t.Helper()
	root := s.root(t)
	s.views.Root = root
	before, err := s.look(true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.look(true); err != nil || !maps.Equal(before, again) {
		t.Fatalf("%s: two looks at one host differ: %v", s.name, err)
	}
	found := map[stayField]string{}
	compare := func(file, how string, args ...any) {
		t.Helper()
		walk := s.walk || strings.HasPrefix(file, cpuDirPath)
		after, err := s.look(walk)
		if err != nil {
			return // a daemon does not start there
		}
		for field, was := range before {
			value, there := after[field]
			if there && value == was || !walk && field.file == cpuDirPath {
				continue
			}
			if !there && field.file != cpuDirPath { // else it is one of its "(names)"
				field.name = "(exists)"
			}
			if there || field.file != cpuDirPath {
				found[field.known()] = fmt.Sprintf(how, args...)
			}
		}
		for field := range after {
			if _, ok := before[field]; !ok {
				found[field.known()] = fmt.Sprintf(how, args...)
			}
		}
	}
	changed := 0
	for _, file := range s.hostFiles(t) {
		path := filepath.Join(root, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, path, "")
		for other, what := range variants(file, string(text)) {
			rewrite(t, path, other)
			compare(file, "%s: %s", file, what)
			changed++
		}
		if strings.HasPrefix(file, cpuDirPath) || strings.HasPrefix(file, "proc/") && strings.Count(file, "/") <= 2 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			compare(file, "%s: removed", file)
		}
		rewrite(t, path, string(text))
		if err := errors.Join(os.Chmod(path, 0o664), os.Chtimes(path, time.Time{}, time.Unix(7, 0))); err != nil {
			t.Fatal(err)
		}
		compare(file, "%s: its attributes", file)
		rewrite(t, path, string(text))
	}
	if after, err := s.look(true); err != nil || !maps.Equal(before, after) {
		t.Fatalf("%s: the host is not as it was: %v", s.name, err)
	}
	t.Logf("%s: %d changes to the host, %d fields of the container's %d follow", s.name, changed, len(found), len(before))
	return found
}

// rewrite leaves nothing but the text different: mode and times are the same for every file.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	at := time.Unix(1, 0)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o444), os.Chmod(path, 0o444), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}
