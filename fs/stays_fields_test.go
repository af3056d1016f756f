//go:build !race

package fs

import (
	"fmt"
	"iter"
	"path"
	"regexp"
	"strings"

	"lensfs/cgroupview"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stayField is one thing that a container sees in a file.
type stayField struct{ file, name string }

// look gives everything that the container sees, as a daemon that has just begun shows it. A daemon never closes what it has opened: here all descriptors
// are closed that are new, which is why this test runs alone. Without walk the directory of CPUs is left out.
func (s stayShape) look(walk bool) (map[stayField]string, error) {
	first, err := unix.Dup(0) // the lowest that is free: a look opens this one and the next ones
	if err != nil {
		return nil, err
	}
	unix.Close(first)
	var others [100]bool
	for i := range others {
		_, err := unix.FcntlInt(uintptr(first+i), unix.F_GETFD, 0)
		others[i] = err == nil
	}
	defer func() {
		for i, other := range others {
			if !other {
				unix.Close(first + i)
			}
		}
	}()
	resolver, host, err := s.views.open()
	if err != nil {
		return nil, err
	}
	cpus, err := s.views.openCPUs()
	if err != nil {
		return nil, err
	}
	seen := map[stayField]string{}
	tree := newTree(files, host, false)
	server := newShared(tree, &renderer{resolver: resolver, host: host, cpus: cpus, stats: &Stats{}}, largeFiles{}, nil)
	c := resolver.Of(stayCaller)
	for _, f := range tree.byNumber {
		if f == nil || f.isDir() {
			continue
		}
		var attr fuse.Attr
		server.attr(f, stayCaller, &attr)
		seen[stayField{f.path, "(attributes)"}] = fmt.Sprint(attr.Mode, attr.Size, attr.Uid, attr.Gid)
		text, err := f.source(nil, host, c)
		if err != nil {
			seen[stayField{f.path, "(error)"}] = err.Error()
			continue
		}
		for name, value := range fieldsOf(f.path, string(text)) {
			seen[stayField{f.path, name}] += value + "\n"
		}
	}
	if !walk {
		return seen, nil
	}
	return seen, server.lookCPUs(seen, cpuDirNumber, "", c)
}

// known is the field as the table has it, the same for every CPU.
func (f stayField) known() stayField {
	if f.file == cpuDirPath {
		f.name = cpuNumbers.ReplaceAllString(f.name, "${1}N")
	}
	return f
}

var cpuNumbers = regexp.MustCompile(`\b(cpu|policy)[0-9]+`)

// lookCPUs walks the directory of CPUs.
func (s *shared) lookCPUs(seen map[stayField]string, dir uint64, name string, c *cgroupview.Container) error {
	entries, err := s.render.listCPUs(s.tree, dir, c)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if s.tree.file(e.Number) != nil {
			continue
		}
		full := path.Join(name, e.Name)
		var st unix.Stat_t
		number, _, err := s.render.cpus.Lookup(inDir(dir), e.Name, c, &st)
		if err != nil {
			return err
		}
		var attr fuse.Attr
		fillHostAttr(number, &st, &attr)
		if e.Mode == unix.S_IFDIR {
			err = s.lookCPUs(seen, number, full, c)
		} else {
			seen[stayField{cpuDirPath, "(names)"}] += full + "\n"
			seen[stayField{cpuDirPath, "(attributes)"}] += fmt.Sprintln(full, attr.Mode, attr.Size, attr.Uid, attr.Gid, attr.Mtime)
			var text []byte
			text, err = s.render.cpus.Read(nil, number, c)
			seen[stayField{cpuDirPath, full}] = string(text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// statColumns names the words of a line of proc/stat.
func statColumns(words []string) []string {
	switch name := words[0]; {
	case name == "unknown":
		return []string{"(unknown lines)"}
	case name == "intr" || name == "softirq":
		return []string{name + " total", name + " total", name + " each"}
	default:
		return []string{cpuNumbers.ReplaceAllString(name, "cpuN")}
	}
}

// fieldsOf takes a text apart.
func fieldsOf(file, text string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			name, value, ok := strings.Cut(line, ":")
			name = strings.TrimSpace(name)
			columns := []string(nil)
			switch {
			case file == "proc/cpuinfo" || file == "proc/meminfo":
				if strings.HasPrefix(name, "Unknown") {
					name = "(unknown lines)"
				}
			case file == "proc/stat":
				columns = statColumns(words)
			case file == "proc/uptime":
				columns = []string{"age", "idle"}
			case file == "proc/loadavg":
				columns = []string{"load", "load", "load", "tasks", "last pid"}
			case file == "proc/diskstats":
				columns = []string{"number", "number", "name", "counts"}
			case file == "proc/swaps" && i > 0:
				columns = []string{"Filename", "Type", "Size", "Used", "Priority"}
			case i == 0 && file == "proc/swaps", i < 2 && file == "proc/slabinfo":
				name, value = "header", line
			default:
				name, value = "text", line
			}
			if columns == nil {
				if !ok {
					value = line
				}
				if !yield(name, value) {
					return
				}
			}
			for n, word := range words[:min(len(words), len(columns)*len(words))] {
				if !yield(columns[min(n, len(columns)-1)], word) {
					return
				}
			}
		}
	}
}
